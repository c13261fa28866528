"""``bench check-method``: whether a detector keeps every promise of the contract."""

import importlib.util
import sys
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bench.commands.flags import console
from bench.errors import UsageError, unknown_name
from bench.options import Flag, Parsed
from methods.conformance import BUILT_IN_SETUPS, CHECKS, Outcome, Setup, Subject, run_check
from methods.detector import Detector
from methods.registry import load_method, method_names

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
    method = options.method
    file, colon, attribute = method.rpartition(":")
    if colon:
        detector, setup = _load(Path(file), attribute), Setup({})
    elif method in method_names():
        detector, setup = load_method(method), BUILT_IN_SETUPS.get(method, Setup({}))
    else:
        raise UsageError(f"{unknown_name('method', method, method_names())}, or FILE:CLASS such as my_method.py:Mine")
    exceptions = {**setup.exceptions, **dict.fromkeys(options.except_, "--except")}
    return Subject(detector, {**setup.options, **options.set}, exceptions=exceptions)


def _load(path: Path, attribute: str) -> type[Detector[Any]]:
    """Import a Python file, which may import its neighbours, and return the detector in it."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist\n  FILE:CLASS takes a Python file, such as my_method.py:Mine.")
    specification = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise UsageError(f"{path} is no Python file; FILE:CLASS takes one, such as my_method.py:Mine")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module  # dataclasses look up their types there
    if str(path.parent.resolve()) not in sys.path:
        sys.path.insert(0, str(path.parent.resolve()))
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        last = "".join(traceback.format_exception_only(error)).strip()
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).name == path.name]
        where = f"line {lines[-1]}: " if lines else ""
        raise UsageError(f"{path} cannot be imported: {where}{last}") from error
    detectors = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Detector) and value is not Detector
    }
    if attribute not in detectors:
        raise unknown_name(f"subclass of methods.detector.Detector in {path}:", attribute, detectors)
    return detectors[attribute]
