"""What the plot of latencies shows: every method on every device, and apart from them what papers published."""

from dataclasses import dataclass

from reports.content.timings import TimingSelection, joined, row_names
from results.published import published_latencies
from results.timing_rows import Estimate, TimingRow


@dataclass(frozen=True)
class LatencyPoint:
    """One method on one device.

    Attributes:
        label: The method, and its setting where that does not go without saying.
        latency: Milliseconds of a pass of one image.
        suspect: Whether its verdict is SUSPECT.
    """

    label: str
    latency: Estimate
    suspect: bool


@dataclass(frozen=True)
class LatencyLine:
    """One device: all measured here, or all published.

    Attributes:
        device: Its name.
        published: Whether others have measured it.
        points: A method each.
    """

    device: str
    published: bool
    points: tuple[LatencyPoint, ...]


@dataclass(frozen=True)
class LatencyPlot:
    """Latencies of one protocol, as Figure 6 of the EfficientAD paper.

    Attributes:
        title: Protocol.
        labels: Of all points, for their colours, the fastest first.
        lines: A device each, measured ones first.
        notes: What the figure must say.
    """

    title: str
    labels: tuple[str, ...]
    lines: tuple[LatencyLine, ...]
    notes: tuple[str, ...]


def latency_plots(timings: TimingSelection) -> dict[str, LatencyPlot]:
    """A plot per protocol and mode that has a row of batch size 1, GPUs and processors apart, by stem of its file."""
    plots: dict[str, LatencyPlot] = {}
    for kind, rows in (("gpu", timings.gpus), ("cpu", timings.cpus)):
        single = [row for row in rows if row.setting.batch == 1 and row.setting.mode in ("request", "device")]
        for protocol, mode in sorted({(row.setting.protocol, row.setting.mode) for row in single}):
            own = [row for row in single if (row.setting.protocol, row.setting.mode) == (protocol, mode)]
            words = f"protocol {protocol}" + ("" if mode == "request" else f", {mode}")
            stem = f"timing-latency-{kind}-{protocol}" + ("" if mode == "request" else f"-{mode}")
            plots[stem] = _plot(
                timings, f"Latency in ms per image, {words}", own, beside=(kind, mode) == ("gpu", "request")
            )
    return plots


def _plot(timings: TimingSelection, title: str, rows: list[TimingRow], *, beside: bool) -> LatencyPlot:
    names = row_names(rows)
    lines = [
        LatencyLine(column, False, _points(names, [row for row in rows if row.device in devices]))
        for column, devices in timings.columns(rows).items()
    ]
    measured = sorted((point for line in lines for point in line.points), key=lambda point: point.latency.value)
    # A published value has the colour of the first setting in which its method was timed.
    first = {row.subject.method: names[row.identity] for row in reversed(rows)}
    published = _published(first) if beside else []
    settings = {f"{row.setting.backend}, {row.setting.precision}" for row in rows}
    notes = [f"{next(iter(settings))}."] if len(settings) == 1 else []
    if any(point.suspect for point in measured):
        notes.append("Half filled: SUSPECT, for the reasons in the tables.")
    if published:
        sources = sorted({one.source for one in published_latencies()})
        notes.append(f"Hollow: published, measured by others in float16 ({', '.join(sources)}).")
    if timings.collapse:
        notes.append("Of several machines: median, from the least to the greatest.")
    return LatencyPlot(
        title, tuple(dict.fromkeys(point.label for point in measured)), (*lines, *published), tuple(notes)
    )


def _points(names: dict[str, str], rows: list[TimingRow]) -> tuple[LatencyPoint, ...]:
    by_identity: dict[str, list[TimingRow]] = {}
    for row in rows:
        by_identity.setdefault(row.identity, []).append(row)
    return tuple(
        LatencyPoint(
            names[identity],
            joined([row.latency for row in own]),
            any(row.verdict.status == "SUSPECT" for row in own),
        )
        for identity, own in by_identity.items()
    )


def _published(labels: dict[str, str]) -> list[LatencyLine]:
    """What was published of the methods at hand, a line per GPU."""
    latencies = [one for one in published_latencies() if one.method in labels]
    return [
        LatencyLine(
            device,
            True,
            tuple(
                LatencyPoint(labels[one.method], Estimate(one.latency_ms), False)
                for one in latencies
                if one.device == device
            ),
        )
        for device in dict.fromkeys(one.device for one in latencies)
    ]
