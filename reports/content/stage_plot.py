"""Where the time of a pass goes: the stages of every method on one device."""

from dataclasses import dataclass

from reports.content.timings import TimingSelection, row_names
from results.timing_rows import Device, TimingRow

REST = "rest"
"""What the stages leave of a pass: gaps between them, and what no stage is named for."""


@dataclass(frozen=True)
class StageBar:
    """One method's pass.

    Attributes:
        label: The method, and its setting where that does not go without saying.
        stages: Milliseconds by name, in their order; the rest last.
    """

    label: str
    stages: dict[str, float]


@dataclass(frozen=True)
class StagePlot:
    """The passes of one device and protocol.

    Attributes:
        title: Device and protocol.
        names: Of all stages, in the order of a pass.
        bars: A pass each, the shortest first.
        notes: What the figure must say.
    """

    title: str
    names: tuple[str, ...]
    bars: tuple[StageBar, ...]
    notes: tuple[str, ...]


def stage_plots(timings: TimingSelection, device: Device) -> dict[str, StagePlot]:
    """A plot per protocol whose passes of one image were timed by stages, by the end of its file's stem."""
    plots: dict[str, StagePlot] = {}
    timed = [row for row in timings.rows if row.device == device and row.setting.batch == 1 and row.stages]
    for protocol in sorted({row.setting.protocol for row in timed}):
        rows = sorted(
            (row for row in timed if row.setting.protocol == protocol and row.setting.mode == "request"),
            key=lambda row: row.median.value,
        )
        if rows:
            plots[protocol] = _plot(f"{timings.title(device)}: stages of a pass, protocol {protocol}", rows)
    return plots


def _plot(title: str, rows: list[TimingRow]) -> StagePlot:
    names_of_rows = row_names(rows)
    bars = []
    for row in rows:
        rest = row.median.value - sum(row.stages.values())
        bars.append(StageBar(names_of_rows[row.identity], {**row.stages, **({REST: rest} if rest > 0 else {})}))
    names = dict.fromkeys(name for bar in bars for name in bar.stages if name != REST)
    notes = ["Medians in ms. Stages are timed by further events, in passes of their own."]
    if any(REST in bar.stages for bar in bars):
        notes.append("Rest: median of the whole pass less the stages; gaps, and what has no stage.")
    return StagePlot(title, (*names, REST), tuple(bars), tuple(notes))
