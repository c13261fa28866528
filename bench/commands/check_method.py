"""``bench check-method``: whether a detector keeps every promise of the contract."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.commands.flags import console
from bench.errors import unknown_name
from bench.option_types import Flag, Parsed
from methods.conformance import BUILT_IN_SETUPS, CHECKS, Outcome, Setup, Subject, run_check
from methods.registry import load_method

PROMISES_BROKEN = 3
MARKS = {
    "kept": Text("✓", "green"),
    "broken": Text("✗", "bold red"),
    "excepted": Text("!", "yellow"),
    "does not apply": Text("–", "dim"),
}


def _assignments(value: object) -> object:
    """Take ``["norm=squared"]``; return ``{"norm": "squared"}``."""
    if not isinstance(value, list):
        return value
    parts = [str(assignment).partition("=") for assignment in value]
    for (name, equals, _), assignment in zip(parts, value, strict=True):
        if not (name and equals):
            raise ValueError(f"{assignment!r} is not of the form OPTION=VALUE")
    return {name.strip(): setting.strip() for name, _, setting in parts}


@dataclass(frozen=True)
class CheckMethodOptions:
    """Everything that ``bench check-method`` takes.

    Attributes:
        method: A method, or a detector in a Python file.
        set: One option of the method, OPTION=VALUE; repeatable.
        except_: A check that is not made; repeatable.
    """

    method: Annotated[str, Flag(argument="NAME|FILE:CLASS", completions="methods")]
    set: Annotated[dict[str, str], Parsed(_assignments), Flag(default="what makes a built-in method small")] = field(
        default_factory=dict
    )
    except_: list[str] = field(default_factory=list)


def check_method(options: CheckMethodOptions) -> int:
    """Check whether a detector keeps every promise of the contract, and explain each that it breaks.

    It is fitted on a few tiny images, on the CPU. Exit code: 0 all promises kept, 2 the command makes no sense, 3 some
    promises broken.
    """
    subject, terminal = _subject(options), console()
    settings = " ".join(f"{name}={value}" for name, value in subject.options.items())
    terminal.print(Text(f"{subject.method.__name__}, {settings or 'with its default options'}", "bold"))
    outcomes = []
    for name in CHECKS:
        outcome = run_check(name, subject)
        outcomes.append(outcome)
        _print(outcome, terminal)
    counts = Counter(outcome.status for outcome in outcomes)
    summary = [f"{counts['kept']} promises kept", f"{counts['broken']} broken"]
    if counts["does not apply"]:
        summary.append(f"{counts['does not apply']} not applicable")
    if counts["excepted"]:
        summary.append(f"{counts['excepted']} excepted")
    terminal.print(", ".join(summary), style="bold", highlight=False)
    return PROMISES_BROKEN if counts["broken"] else 0


def _print(outcome: Outcome, terminal: Console) -> None:
    row = Table.grid(padding=(0, 1))
    for width in (1, max(map(len, CHECKS)), None):
        row.add_column(width=width)
    said = [outcome.promise]
    if outcome.broken:
        said = outcome.explanation.splitlines()
    elif outcome.explanation:
        said = [f"{outcome.promise} ({outcome.status}: {outcome.explanation})"]
    style = "red" if outcome.broken else ""
    row.add_row(MARKS[outcome.status], outcome.name, Text(said[0], style))
    for line in said[1:]:
        row.add_row("", "", Padding(Text(line.strip(), style), (0, 0, 0, 2)))
    terminal.print(row)


def _subject(options: CheckMethodOptions) -> Subject:
    for name in options.except_:
        if name not in CHECKS:
            raise unknown_name("check", name, CHECKS)
    detector, setup = load_method(options.method), BUILT_IN_SETUPS.get(options.method, Setup({}))
    exceptions = {**setup.exceptions, **dict.fromkeys(options.except_, "--except")}
    return Subject(detector, {**setup.options, **options.set}, exceptions=exceptions)
