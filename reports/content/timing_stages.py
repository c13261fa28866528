"""What the parts of a pass take: a table, and a bar per row that they fill one after the other."""

from dataclasses import dataclass

from reports.content.tables import Column, Field, Marks, Note, Table
from reports.content.timings import TimingSelection, estimate_text, milliseconds, row_label, row_names, setting_texts
from results.timing_rows import Device, TimingRow

_OUTSIDE = ("transfer to device", "preprocessing", "between stages", "post", "transfer back")
_TEXT = (
    "Medians of passes of their own, one at a time, with marks around the parts, which take time too. Preprocessing: "
    "up to the first network. Between stages: neither a network nor a search. Post: after the last one."
)


@dataclass(frozen=True)
class StageBar:
    """One row's pass.

    Attributes:
        label: The method, and its setting where that does not go without saying.
        parts: Name and milliseconds, in the order in which they run.
    """

    label: str
    parts: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        """Milliseconds."""
        return sum(value for _, value in self.parts)


@dataclass(frozen=True)
class StagePlot:
    """Passes of one device, each as a bar of its parts.

    Attributes:
        title: Device and what is shown.
        names: Of all parts, for their colours: those that every method has come last.
        bars: The shortest pass first.
        notes: What the figure must say.
    """

    title: str
    names: tuple[str, ...]
    bars: tuple[StageBar, ...]
    notes: tuple[str, ...]


def stage_plots(timings: TimingSelection, device: Device) -> dict[str, StagePlot]:
    """The bars of one device, of each protocol and batch size that has some, by the end of their file's stem."""
    groups: dict[tuple[str, int], list[TimingRow]] = {}
    for row in _staged(timings, device):
        groups.setdefault((row.setting.protocol, row.setting.batch), []).append(row)
    plots = {}
    for (protocol, batch), rows in sorted(groups.items()):
        names = row_names(rows)
        bars = sorted(
            (
                StageBar(names[row.identity], tuple((name, part.value) for name, part in row.stages.items()))
                for row in rows
            ),
            key=lambda bar: bar.total,
        )
        parts = dict.fromkeys(name for bar in bars for name, _ in bar.parts)
        own = [name for name in parts if name not in _OUTSIDE]
        size = "" if batch == 1 else f", batch size {batch}"
        plots[f"stages-{protocol}-{batch}"] = StagePlot(
            f"{timings.title(device)}, protocol {protocol}{size}: what the parts of a pass take",
            (*own, *(name for name in _OUTSIDE if name in parts)),
            tuple(bars),
            (_TEXT,),
        )
    return plots


def stage_table(timings: TimingSelection, device: Device) -> Table | None:
    """A line per row and part; ``None`` if no row of the device has any."""
    rows = _staged(timings, device)
    settings, marks, body = setting_texts(rows), Marks(), []
    for row in sorted(rows, key=lambda row: (row.subject.title.casefold(), settings[row.identity], row.setting.batch)):
        whole = sum(part.value for part in row.stages.values())
        for name, part in row.stages.items():
            body.append(
                (
                    row_label(row, marks),
                    Field(f"{row.setting.protocol}, {settings[row.identity]}"),
                    Field(str(row.setting.batch)),
                    Field(name),
                    Field(estimate_text(part)),
                    Field(milliseconds(row.stage_tail(name))),
                    Field(f"{100 * part.value / whole:.0f} %" if whole else "0 %"),
                )
            )
    numbers = ("p50, ms", "p99, ms", "Share")
    columns = (
        *(Column("Method"), Column("Setting"), Column("Batch", numeric=True), Column("Part")),
        *(Column(title, numeric=True) for title in numbers),
    )
    title = f"{timings.title(device)}: what the parts of a pass take"
    note = Note("", f"{_TEXT} p99: the largest of the processes, where there are passes enough.")
    return Table(title, columns, tuple(body), (note, *marks.notes())) if body else None


def _staged(timings: TimingSelection, device: Device) -> list[TimingRow]:
    return [row for row in timings.rows if row.device == device and row.stages]
