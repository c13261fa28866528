"""How exact the faster ways to run a detector are, and how much faster: one row each, beside the plain module."""

from reports.content.tables import UNDEFINED, Column, Field, Marks, Note, Table
from reports.content.timings import TimingSelection, estimate_text, row_label, setting_texts
from reports.content.vocabulary import metric_title, percent
from results.parity import Parity
from results.timing_rows import Device, Estimate, TimingRow, compare_rows


def exactness_table(timings: TimingSelection, device: Device) -> Table | None:
    """Every row of a device that was compared with the plain float32 module; ``None`` if there is none."""
    rows = [row for row in timings.rows if row.device == device and row.setting.mode in ("request", "device")]
    compared = [(row, row.newest.exactness) for row in rows if row.newest.exactness is not None]
    if not compared:
        return None
    settings, marks = setting_texts([row for row, _ in compared]), Marks()
    metrics = list(dict.fromkeys(name for _, exactness in compared if exactness for name in exactness.metrics))
    body = []
    for row, exactness in compared:
        assert exactness is not None
        body.append(
            (
                row_label(row, marks),
                Field(settings[row.identity]),
                Field(str(row.setting.batch)),
                Field(_ratio(row, rows)),
                Field(f"{exactness.map_error:.1e}"),
                Field(f"{exactness.score_error:.1e}"),
                Field(f"{len(exactness.flipped)} of {exactness.images}"),
                *(Field(_change(exactness, name)) for name in metrics),
            )
        )
    numbers = ("Batch", "Time", "Map error", "Score error", "Flipped", *(metric_title(name) for name in metrics))
    columns = (Column("Method"), Column("Setting"), *(Column(title, numeric=True) for title in numbers))
    note = Note(
        "",
        "Beside the plain module: eager, in float32 unless the run kept it in half precision, on the same device, on "
        "the test images of the scenario that it was fitted on. Time: in terms of the plain module's, by pairs of "
        "processes of the same round, with its 95 % interval. Errors: largest difference, as a share of the range of "
        "the plain module's values. Flipped: images judged otherwise at the threshold of highest F1. Metrics in "
        "percent: the plain module's → this row's.",
    )
    return Table(f"{timings.title(device)}: exactness", columns, tuple(body), (note, *marks.notes()))


def _ratio(row: TimingRow, rows: list[TimingRow]) -> str:
    """The time of a row in terms of the plain module's with the same detector, protocol, mode and batch size."""
    for other in rows:
        same = all(
            getattr(other.setting, name) == getattr(row.setting, name)
            for name in ("protocol", "mode", "batch", "input_size", "cache")
        )
        if other.setting.plain and same and other.subject.model_sha256 == row.subject.model_sha256:
            seen = compare_rows(row, other)
            return UNDEFINED if seen.ratio is None else estimate_text(Estimate(seen.ratio, seen.low, seen.high))
    return UNDEFINED


def _change(exactness: Parity, metric: str) -> str:
    if metric not in exactness.metrics:
        return UNDEFINED
    plain, other = exactness.metrics[metric]
    return f"{percent(plain)} → {percent(other)}"
