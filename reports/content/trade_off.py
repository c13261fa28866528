"""Accuracy against latency and throughput: which methods no other one beats in both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reports.content.aggregate import Row, aggregate, compared
from reports.content.selection import Part, Selection
from reports.content.tables import available_metrics, stamps
from reports.content.timings import TimingSelection, row_names
from reports.content.vocabulary import summary_metrics
from results.record import Record
from results.timing_record import Subject
from results.timing_rows import Device, Estimate, TimingRow

_THROUGHPUT_BATCH = 16
Speed = Literal["latency", "throughput"]


@dataclass(frozen=True)
class TradeOffPoint:
    """One method.

    Attributes:
        label: Its name, and its setting where that does not go without saying.
        accuracy: Fraction: mean with standard deviation over seeds.
        speed: Latency in ms or throughput in images/s.
        front: Whether no other point is at least as good in both and better in one.
        suspect: Whether the verdict on its time is SUSPECT.
    """

    label: str
    accuracy: Estimate
    speed: Estimate
    front: bool
    suspect: bool


@dataclass(frozen=True)
class TradeOffPanel:
    """One metric against latency or throughput."""

    metric: str
    speed: Speed
    points: tuple[TradeOffPoint, ...]


@dataclass(frozen=True)
class TradeOffPlot:
    """One collection on one device.

    Attributes:
        title: Collection, device and protocol.
        labels: Of all points, for their colours.
        panels: Metrics one below the other, latency on the left of throughput.
        notes: What the figure must say.
    """

    title: str
    labels: tuple[str, ...]
    panels: tuple[TradeOffPanel, ...]
    notes: tuple[str, ...]


def trade_off_plots(selection: Selection, timings: TimingSelection, device: Device) -> dict[str, TradeOffPlot]:
    """A plot per collection and protocol with at least two methods that have both, by the end of its file's stem."""
    plots = {}
    rows = [row for row in timings.rows if row.device == device and row.setting.mode == "request"]
    for part in selection.parts:
        for protocol in sorted({row.setting.protocol for row in rows}):
            plot = _plot(part, timings.title(device), [row for row in rows if row.setting.protocol == protocol])
            if plot is not None:
                plots[f"{part.stem}-{protocol}"] = plot
    return plots


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Tell which points, more being better in both, no other one equals in both and beats in one."""
    return [not any(a >= x and b >= y and (a, b) != (x, y) for a, b in points) for x, y in points]


def _plot(part: Part, device: str, timed: Sequence[TimingRow]) -> TradeOffPlot | None:
    available = available_metrics(part.results)
    metrics = [metric for metric in summary_metrics(available) if metric in available]
    rows = aggregate(part.results, metrics)
    alike = [row for row, same in zip(rows, compared(rows), strict=True) if same]
    pairs = [(row, timing) for row in alike for timing in timed if _same_detector(row, timing.subject)]
    if len({(row.variant.identity, timing.identity) for row, timing in pairs}) < 2:
        return None
    labels = _labels(pairs)
    ranks = part.collection.note is None
    panels = [
        TradeOffPanel(metric, speed, _points(pairs, labels, metric, speed, ranks))
        for metric in metrics
        for speed in ("latency", "throughput")
    ]
    shown = tuple(panel for panel in panels if panel.points)
    title = f"{part.title}: accuracy against time on {device}, protocol {timed[0].setting.protocol}"
    notes = (*stamps([result for row, _ in pairs for result in row.results]), *_notes(pairs, ranks))
    return TradeOffPlot(title, tuple(dict.fromkeys(labels)), shown, notes) if shown else None


def _same_detector(row: Row, subject: Subject) -> bool:
    """Whether a row's cells were made by what was timed, but for what takes no time: training length, images, seed."""
    return any(_is_of(result.record, subject) for result in row.results if result.ok)


def _is_of(record: Record, subject: Subject) -> bool:
    weights = {one.sha256 for one in record.weights} == {one.sha256 for one in subject.weights}
    return record.method == subject.method and record.config == subject.config and weights


def _labels(pairs: Sequence[tuple[Row, TimingRow]]) -> list[str]:
    names = row_names([timing for _, timing in pairs])
    # The accuracy's label numbers configurations, the time's name says how it was run.
    return [row.variant.label + names[timing.identity].removeprefix(timing.subject.title) for row, timing in pairs]


def _points(
    pairs: Sequence[tuple[Row, TimingRow]], labels: Sequence[str], metric: str, speed: Speed, ranks: bool
) -> tuple[TradeOffPoint, ...]:
    batch = 1 if speed == "latency" else _THROUGHPUT_BATCH
    found = []
    for (row, timing), label in zip(pairs, labels, strict=True):
        mean = row.means[metric]
        if timing.setting.batch == batch and mean.value is not None:
            spread = mean.deviation
            accuracy = Estimate(mean.value)
            if spread is not None:
                accuracy = Estimate(mean.value, mean.value - spread, mean.value + spread, spread)
            time = timing.latency if speed == "latency" else timing.throughput
            found.append((label, accuracy, time, timing.verdict.status == "SUSPECT"))
    better = -1 if speed == "latency" else 1
    best = front([(accuracy.value, better * time.value) for _, accuracy, time, _ in found])
    return tuple(
        TradeOffPoint(label, accuracy, time, ranks and on_front, suspect)
        for (label, accuracy, time, suspect), on_front in zip(found, best, strict=True)
    )


def _notes(pairs: Sequence[tuple[Row, TimingRow]], ranks: bool) -> list[str]:
    notes = ["Bars: standard deviation over seeds; deviation or 95 % interval over processes."]
    if ranks:
        notes.append("Edged, on the line: Pareto front of the values.")
    mixed = sorted(
        {f"{row.variant.precision} and {timing.setting.precision}" for row, timing in pairs
         if row.variant.precision != timing.setting.precision}
    )  # fmt: skip
    if mixed:
        notes.append(f"Accuracy and time are of different precisions: {', '.join(mixed)}.")
    if any(timing.verdict.status == "SUSPECT" for _, timing in pairs):
        notes.append("Half filled: SUSPECT times, for the reasons in the tables.")
    return notes
