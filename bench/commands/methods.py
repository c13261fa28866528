"""``bench methods``: which methods there are, and their options."""

import dataclasses
import inspect
import re

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.errors import unknown_name
from methods.errors import MethodError


def list_methods(console: Console) -> None:
    """Print every method with title, source and presets."""
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
    console.print(table)
    console.print("bench methods NAME shows a method's options.", highlight=False)


def show_method(name: str, console: Console) -> None:
    """Print one method's options with their defaults, and what its presets change.

    Raises:
        UsageError: There is no such method.
    """
    from methods.registry import load_method, method_names

    if name not in method_names():
        raise unknown_name("method", name, method_names())
    method = load_method(name)
    console.print(Text(f"{method.title}: {method.source}", style="bold"))
    table = Table()
    presets = list(method.presets)
    for head in ("Option", "Default", *(f"Preset {preset}" for preset in presets), "Meaning"):
        table.add_column(head)
    defaults, meanings = method.Config(), described(method.Config.__doc__ or "")
    for field in dataclasses.fields(method.Config):
        if field.init:
            changed = [method.presets[preset].get(field.name) for preset in presets]
            values = [getattr(defaults, field.name), *changed, meanings.get(field.name)]
            table.add_row(field.name, *(Text("" if value is None else str(value)) for value in values))
    console.print(table)
    console.print(f"Set one with --set {name}.OPTION=VALUE.", highlight=False, soft_wrap=True)


def described(docstring: str) -> dict[str, str]:
    """The attributes that a docstring in Google style describes: name to text."""
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(docstring).partition("Attributes:")[2].splitlines():
        head = re.match(r" {4}(\w+): (.*)", line)
        if head:
            name = head[1]
            found[name] = head[2]
        elif name and line.startswith(" " * 8):
            found[name] += f" {line.strip()}"
    return {name: text.replace("``", "") for name, text in found.items()}
