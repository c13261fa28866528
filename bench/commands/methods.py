"""``bench methods``: which methods there are, their options, and their cards."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bench.commands.flags import console
from bench.commands.method_cards import card, licences_of, needs_of, parameters_of, status_of
from bench.errors import UsageError
from bench.option_types import Flag, Folder
from bench.options import described

if TYPE_CHECKING:
    from methods.detector import Detector


@dataclass(frozen=True)
class MethodsOptions:
    """Everything that ``bench methods`` takes.

    Attributes:
        name: Show the options of this method.
        cards: Write a page of Markdown about each built-in method into this folder.
    """

    name: Annotated[str | None, Flag(argument="NAME", completions="methods")] = None
    cards: Folder | None = None


def methods(options: MethodsOptions) -> int:
    """List the methods, or the options and presets of one."""
    if options.cards is not None:
        _write_cards(options.cards)
    elif options.name is None:
        _list_methods()
    else:
        _show_method(options.name)
    return 0


def _list_methods() -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from methods.errors import MethodError
    from methods.registry import load_method, method_names

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("Method", "Paper, status, needs and presets"):
        table.add_column(head)
    for name in method_names():
        try:
            method = load_method(name)
        except MethodError as error:  # of another package: it must not hide the rest
            table.add_row(name, Text(f"cannot be loaded: {error}", "red"))
            continue
        table.add_row(Text(name, "bold"), Text("\n".join(_facts(name, method))), end_section=True)
    models = Text(
        "any image model of the installed anomalib, such as anomalib:Padim[backbone=resnet18];\n"
        "docs/methods/anomalib.md says which run, and which of them without network"
    )
    table.add_row(Text("anomalib:MODEL", "bold"), models)
    table.add_row(Text("FILE:CLASS", "bold"), "a detector in a Python file: bench new-method NAME writes one")
    terminal = console()
    terminal.print(table)
    terminal.print("bench methods NAME shows a method's options and its number of parameters.", highlight=False)


def _facts(name: str, method: "type[Detector[Any]]") -> Iterator[str]:
    """What the list says of a method, a line each."""
    yield f"{method.title}: {method.source}"
    yield status_of(name, method)
    licences = f" ({'; '.join(licences_of(method))})" if licences_of(method) else ""
    if needs_of(method) or licences:
        yield f"needs {', '.join(needs_of(method))}{licences}"
    if method.presets:
        yield f"presets {', '.join(method.presets)}"


def _show_method(name: str) -> None:
    """Print one method's options with their defaults, and what its presets change."""
    from rich.table import Table
    from rich.text import Text

    from methods.registry import load_method

    method, terminal = load_method(name), console()
    terminal.print(Text(f"{method.title}: {method.source}", style="bold"))
    parameters = parameters_of(method)
    facts = [status_of(name, method), *needs_of(method), *licences_of(method)]
    facts += [f"{parameters / 1e6:.2f} million parameters, backbone included"] if parameters else []
    terminal.print(Text("; ".join(facts)), soft_wrap=True)
    table = Table()
    for head in ("Option", "Default", "Meaning"):
        table.add_column(head)
    defaults, meanings = method.Config(), described(method.Config)
    for field in dataclasses.fields(method.Config):
        if field.init:
            values = (getattr(defaults, field.name), meanings.get(field.name, ""))
            table.add_row(field.name, *(Text(str(value)) for value in values))
    terminal.print(table)
    for preset, options in method.presets.items():
        changes = ", ".join(f"{option}={value}" for option, value in options.items())
        terminal.print(Text(f"Preset {preset}: {changes}"), soft_wrap=True)
    terminal.print(f"Set one with --set {name}.OPTION=VALUE.", highlight=False, soft_wrap=True)


def _write_cards(folder: Path) -> None:
    """Write the cards.

    Raises:
        UsageError: The folder cannot be written.
    """
    from methods.registry import BUILT_IN

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in BUILT_IN:
            (folder / f"{name}.md").write_text(card(name))
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}\n  Name another folder.") from error
