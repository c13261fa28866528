"""Write a report, or tell whether the one on disk is what the records say."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import jinja2

from reports.content.document import Document, make_document
from reports.content.prices import parse_prices
from reports.content.selection import NO_RESULTS, Selection, read_runs
from reports.content.timings import TimingSelection, holds_only_timings, select_timings
from reports.errors import ReportError
from reports.rendering import latex, markdown
from reports.rendering.delimited import cells_csv, definitions_csv, means_csv, metrics_csv, thresholds_csv, timing_csv
from reports.rendering.figures.draw import draw
from reports.rendering.figures.style import encode
from results.atomic import write_atomically

FORMATS = ("md", "tex", "csv")


def write_report(
    runs: Sequence[Path], out: Path, formats: Collection[str] = FORMATS, *, collapse: bool = False, price: str = ""
) -> list[Path]:
    """Write the report of some runs.

    ``md`` is ``report.md`` with PNG figures, ``tex`` is ``report.tex`` with its tables apart and PDF figures, ``csv``
    is ``metrics.csv`` (every cell's metrics), ``means.csv`` (the tables' rows), ``cells.csv`` (how each cell ran) and,
    where cells have them, ``thresholds.csv`` (what thresholds promise and do), ``definitions.csv`` (other definitions
    of AU-PRO) and ``timing.csv`` (every row that was timed).

    Args:
        runs: Run folders, and files or folders of timings.
        out: Folder to write to.
        formats: Of ``md``, ``tex``, ``csv``.
        collapse: Join machines with the same GPU in tables of timings.
        price: What an hour of a device costs: ``1.2/h``, ``A6000=0.8 EUR/h,H100=2.5 EUR/h``.

    Returns:
        The files written.

    Raises:
        ReportError: There is no record, or a format or a price is unknown.
        results.errors.ResultError: A record cannot be read or a file cannot be written.
    """
    files = make_report(runs, formats, collapse=collapse, price=price)
    for name, content in files.items():
        _write(out / name, content)
    return [out / name for name in files]


def check_report(
    runs: Sequence[Path], out: Path, formats: Collection[str] = FORMATS, *, collapse: bool = False, price: str = ""
) -> list[Path]:
    """Make the report of some runs in memory, and return the files in ``out`` that are missing or differ from it.

    Figures compare byte by byte: another version of matplotlib than the one that drew them may count as a difference.

    Raises:
        ReportError: There is no record, or a format or a price is unknown.
        results.errors.ResultError: A record cannot be read.
    """
    files = make_report(runs, formats, collapse=collapse, price=price)
    return [out / name for name, content in files.items() if _read(out / name) != content]


def make_report(
    runs: Sequence[Path], formats: Collection[str], *, collapse: bool = False, price: str = ""
) -> dict[str, bytes]:
    """Make the files of a report: name within its folder to content; what it takes is as for :func:`write_report`.

    Raises:
        ReportError: There is no record, or a format or a price is unknown.
        results.errors.ResultError: A record cannot be read.
    """
    unknown = sorted(set(formats) - set(FORMATS))
    if unknown:
        raise ReportError(f"unknown report format {', '.join(unknown)}; allowed: {', '.join(FORMATS)}")
    timings = select_timings(runs, collapse=collapse, prices=parse_prices(price))
    accuracies = [run for run in runs if not holds_only_timings(run)]
    selection = read_runs(accuracies) if accuracies else NO_RESULTS
    document = make_document(selection, timings)
    files: dict[str, bytes] = {}
    if "md" in formats:
        files["report.md"] = _render("report.md.jinja", document).encode()
    if "tex" in formats:
        files["report.tex"] = _render("report.tex.jinja", document).encode()
        for section in document.sections:
            files |= {f"{stem}.tex": latex.render_table(table).encode() for stem, table in section.tables.items()}
    files |= _figures(document, formats)
    if "csv" in formats:
        files |= _tabular(selection, timings)
    return files


def _figures(document: Document, formats: Collection[str]) -> dict[str, bytes]:
    kinds: list[Literal["png", "pdf"]] = []
    kinds += ["png"] if "md" in formats else []
    kinds += ["pdf"] if "tex" in formats else []
    if not kinds:
        return {}
    files: dict[str, bytes] = {}
    for section in document.sections:
        for picture in section.figures:
            figure = draw(picture.shows)
            files |= {f"{picture.stem}.{kind}": encode(figure, kind) for kind in kinds}
    return files


def _tabular(selection: Selection, timings: TimingSelection) -> dict[str, bytes]:
    more = {
        "thresholds.csv": thresholds_csv(selection),
        "definitions.csv": definitions_csv(selection),
        "timing.csv": timing_csv(timings),
    }
    files = {name: text.encode() for name, text in more.items() if text}
    if not selection.results:
        return files
    return {
        "metrics.csv": metrics_csv(selection).encode(),
        "means.csv": means_csv(selection).encode(),
        **files,
        # Last: a report is whole when this file is there.
        "cells.csv": cells_csv(selection).encode(),
    }


def _render(template: str, document: Document) -> str:
    # Not the usual braces and percent signs: LaTeX is full of them.
    environment = jinja2.Environment(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader("reports.rendering"),
        autoescape=False,
    )
    environment.filters |= {
        "md": markdown.escape,
        "md_table": markdown.render_table,
        "md_log": markdown.preformatted,
        "tex": latex.escape,
        "tex_names": latex.breakable,
        "tex_log": latex.log_lines,
    }
    return environment.get_template(template).render(report=document).rstrip() + "\n"


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
