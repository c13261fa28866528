"""``bench methods``: which methods there are, and their options."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from bench.commands.flags import console
from bench.options import Flag, described


@dataclass(frozen=True)
class MethodsOptions:
    """Everything that ``bench methods`` takes.

    Attributes:
        name: Show the options of this method.
    """

    name: Annotated[str | None, Flag(argument="NAME", completions="methods")] = None


def methods(options: MethodsOptions) -> int:
    """List the methods, or the options and presets of one."""
    if options.name is None:
        _list_methods()
    else:
        _show_method(options.name)
    return 0


def _list_methods() -> None:
    from rich.table import Table
    from rich.text import Text

    from methods.errors import MethodError
    from methods.registry import load_method, method_names

    table = Table()
    for head in ("Name", "Title", "Source", "Presets"):
        table.add_column(head)
    for name in method_names():
        try:
            method = load_method(name)
        except MethodError as error:  # of another package: it must not hide the rest
            table.add_row(name, Text("cannot be loaded", "red"), Text(str(error)), "")
            continue
        table.add_row(name, method.title, method.source, ", ".join(method.presets) or "–")
    terminal = console()
    terminal.print(table)
    terminal.print("bench methods NAME shows a method's options.", highlight=False)


def _show_method(name: str) -> None:
    """Print one method's options with their defaults, and what its presets change."""
    from rich.table import Table
    from rich.text import Text

    from methods.registry import load_method

    method, terminal = load_method(name), console()
    terminal.print(Text(f"{method.title}: {method.source}", style="bold"))
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
