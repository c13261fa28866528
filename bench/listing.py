"""What there is: methods, data sets, reports of runs."""

import dataclasses
import inspect
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.demo import DEMO, DEMO_SCENARIOS
from bench.errors import unknown_name
from bench.options import default_data_root
from methods.errors import MethodError

STALE = 3


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


def list_datasets(data_root: Path | None, console: Console) -> None:
    """Print the collections under the data root with their scenarios and coverage."""
    from bench.datasets import list_collections

    root = data_root or default_data_root()
    found = list_collections(root, Cache(default_cache_directory()))
    console.print(f"Data root: {escape(str(root))}{'' if root.is_dir() else ' (does not exist)'}", highlight=False)
    table = Table()
    for head in ("Collection", "Title", "Coverage", "Scenarios"):
        table.add_column(head)
    for collection, scenarios, coverage in found:
        table.add_row(*map(Text, (collection.name, collection.title, coverage, ", ".join(scenarios))))
    table.add_row(DEMO.name, DEMO.title, "embedded", ", ".join(DEMO_SCENARIOS))
    console.print(table)
    if not found:
        console.print(
            "Nothing found: point --data-root or BENCH_DATA at a folder with <collection>/<scenario>/train/good, or "
            "use --datasets demo, which needs no data.",
            highlight=False,
        )


def report(runs: Sequence[Path], formats: str, out: Path | None, check: bool, console: Console) -> int:
    """Write the report of some runs, or with ``check`` compare it with the files on disk.

    Returns:
        The exit code: 0, or 3 if ``check`` found a file missing or different.

    Raises:
        ReportError: There is no record, or a format is unknown.
        ResultError: A record cannot be read or a file cannot be written.
    """
    from reports.report import check_report, write_report

    folder = out or (runs[0] / "report" if len(runs) == 1 else Path("report"))
    wanted = [part.strip() for part in formats.split(",") if part.strip()]
    if check:
        return _say_stale(check_report(runs, folder, wanted), folder, console)
    for path in write_report(runs, folder, wanted):
        console.print(escape(str(path)), highlight=False, soft_wrap=True)
    return 0


def report_into(file: Path, runs: Sequence[Path], check: bool, console: Console) -> int:
    """Write the tables of means between the two markers of a Markdown file, or with ``check`` compare them.

    Returns:
        The exit code: 0, or 3 if ``check`` found other tables.

    Raises:
        ReportError: There is no record, or the file has not the two markers.
        ResultError: A record cannot be read or the file cannot be written.
    """
    from reports.block import check_block, update_block

    if check:
        return _say_stale([] if check_block(file, runs) else [file], file, console)
    changed = update_block(file, runs)
    console.print(f"{'' if changed else 'up to date: '}{escape(str(file))}", highlight=False, soft_wrap=True)
    return 0


def _say_stale(stale: Sequence[Path], checked: Path, console: Console) -> int:
    for path in stale:
        console.print(f"[red]not up to date:[/] {escape(str(path))}", highlight=False, soft_wrap=True)
    if not stale:
        console.print(f"up to date: {escape(str(checked))}", highlight=False, soft_wrap=True)
    return STALE if stale else 0
