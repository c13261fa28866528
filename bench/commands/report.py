"""``bench report``: tables and figures from the records of some runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from bench.commands.flags import console
from bench.option_types import Flag, Folder

STALE = 3


@dataclass(frozen=True)
class ReportOptions:
    """Everything that ``bench report`` takes.

    Attributes:
        runs: Run folders, and files or folders of timings, such as other machines'.
        format: md, tex, csv, comma separated.
        out: Folder to write to.
        into: Instead write the tables of means into this Markdown file, between its two markers.
        check: Write nothing; exit with 3 if a file is missing or not up to date.
        collapse: Join machines with the same GPU to one column of timings: median [least, greatest].
        price: What an hour of a device costs, for the costs of a million images: 1.2/h, or DEVICE=0.8 EUR/h, comma
            separated.
    """

    runs: Annotated[list[Folder], Flag(argument="RUN...")]
    format: str = "md,tex,csv"
    out: Annotated[Folder | None, Flag(default="report in the run folder; of several or of a file, report here")] = None
    into: Folder | None = None
    check: bool = False
    collapse: bool = False
    price: str = ""


def report(options: ReportOptions) -> int:
    """Write tables and figures from the records of some runs."""
    return _update_block(options.into, options) if options.into is not None else _write_report(options)


def _write_report(options: ReportOptions) -> int:
    from reports.report import check_report, write_report

    (first, *others) = options.runs
    folder = options.out or (first / "report" if not others and not first.is_file() else Path("report"))
    formats = [part.strip() for part in options.format.split(",") if part.strip()]
    if options.check:
        stale = check_report(options.runs, folder, formats, collapse=options.collapse, price=options.price)
        return _say_stale(stale, folder)
    for path in write_report(options.runs, folder, formats, collapse=options.collapse, price=options.price):
        _say(str(path))
    return 0


def _update_block(file: Path, options: ReportOptions) -> int:
    """Write the tables of means between the two markers of a Markdown file, or compare them."""
    from reports.block import check_block, update_block

    if options.check:
        return _say_stale([] if check_block(file, options.runs) else [file], file)
    _say(str(file), "" if update_block(file, options.runs) else "up to date: ")
    return 0


def _say_stale(stale: Sequence[Path], checked: Path) -> int:
    for path in stale:
        _say(str(path), "[red]not up to date:[/] ")
    if not stale:
        _say(str(checked), "up to date: ")
    return STALE if stale else 0


def _say(path: str, before: str = "") -> None:
    from rich.markup import escape

    console().print(f"{before}{escape(path)}", highlight=False, soft_wrap=True)
