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
    """

    runs: Annotated[list[Folder], Flag(argument="RUN...")]
    format: str = "md,tex,csv"
    out: Annotated[Folder | None, Flag(default="report in the run folder; of several runs, report here")] = None
    into: Folder | None = None
    check: bool = False


def report(options: ReportOptions) -> int:
    """Write tables and figures from the records of some runs."""
    return _update_block(options.into, options) if options.into is not None else _write_report(options)


def _write_report(options: ReportOptions) -> int:
    from reports.report import check_report, write_report

    folder = options.out or (options.runs[0] / "report" if len(options.runs) == 1 else Path("report"))
    formats = [part.strip() for part in options.format.split(",") if part.strip()]
    if options.check:
        return _say_stale(check_report(options.runs, folder, formats), folder)
    for path in write_report(options.runs, folder, formats):
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
