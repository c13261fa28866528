"""``bench report``: tables and figures from the records of some runs."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

STALE = 3


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
