"""What it takes until a detector runs: restored, compiled, for the first time, after a rest."""

from statistics import fmean, median

from reports.content.tables import UNDEFINED, Column, Field, Marks, Note, Table
from reports.content.timings import TimingSelection, milliseconds, row_label, setting_texts
from results.timing_rows import Device


def start_table(timings: TimingSelection, device: Device) -> Table | None:
    """A line per row of one device; ``None`` if there is none."""
    rows = [row for row in timings.rows if row.device == device]
    settings, marks, body = setting_texts(rows), Marks(), []
    for row in sorted(rows, key=lambda row: (row.subject.title.casefold(), settings[row.identity], row.setting.batch)):
        starts = [record.sampling for record in row.records]
        compiling = fmean(start.compile_ms for start in starts)
        rests = row.after_idle
        body.append(
            (
                row_label(row, marks),
                Field(f"{row.setting.protocol}, {row.setting.mode}, {settings[row.identity]}"),
                Field(str(row.setting.batch)),
                Field(milliseconds(fmean(start.load_ms for start in starts))),
                Field(milliseconds(compiling) if compiling else UNDEFINED),
                Field(milliseconds(fmean(start.cold_start_ms for start in starts))),
                Field("; ".join(f"{seconds:g} s: {_passes(passes)}" for seconds, passes in rests.items()) or UNDEFINED),
                Field(milliseconds(fmean(record.wall.p50 for record in row.records))),
            )
        )
    numbers = ("Batch", "Load, ms", "Compile, ms", "First pass, ms", "After a rest, ms", "Later, ms")
    columns = (Column("Method"), Column("Setting"), *(Column(title, numeric=True) for title in numbers))
    note = Note(
        "",
        "Means over processes, by the host's clock. Compile: or capture, or convert. After a rest: first passes of all "
        "processes after so many seconds, median (slowest). Later: the median pass.",
    )
    return Table(f"{timings.title(device)}: cold start", columns, tuple(body), (note, *marks.notes())) if body else None


def _passes(passes: list[float]) -> str:
    return f"{milliseconds(median(passes))} ({milliseconds(max(passes))})"
