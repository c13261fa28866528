"""What the latency plot of one device shows: measured rows, and beside them what papers published of the same GPU."""

from dataclasses import dataclass

from reports.content.timings import TimingSelection, device_title, setting_text
from results.published import published_latencies
from results.timing_rows import Device, Estimate, TimingRow


@dataclass(frozen=True)
class LatencyLine:
    """One line of the plot.

    Attributes:
        label: The method, and its setting.
        latency: Milliseconds of a pass of one image.
        suspect: Whether its verdict is SUSPECT.
        published: Of the same method on the same GPU; ``None`` if nobody has.
    """

    label: str
    latency: Estimate
    suspect: bool
    published: float | None


@dataclass(frozen=True)
class LatencyPlot:
    """Latency of every row of one device and protocol, fastest first.

    Attributes:
        title: Device and protocol.
        lines: Top to bottom.
        notes: What the figure must say.
    """

    title: str
    lines: tuple[LatencyLine, ...]
    notes: tuple[str, ...]


def latency_plots(timings: TimingSelection) -> dict[str, LatencyPlot]:
    """A plot per device and protocol that has a row of batch size 1, by the stem of its file."""
    plots: dict[str, LatencyPlot] = {}
    for number, device in enumerate(sorted({row.device for row in timings.rows}), start=1):
        single = [row for row in timings.rows if row.device == device and _is_latency(row)]
        for protocol in sorted({row.setting.protocol for row in single}):
            rows = [row for row in single if row.setting.protocol == protocol]
            plots[f"timing-latency-{number}-{protocol}"] = _plot(device, protocol, rows)
    return plots


def _is_latency(row: TimingRow) -> bool:
    return row.setting.batch == 1 and row.setting.mode in ("request", "device")


def _plot(device: Device, protocol: str, rows: list[TimingRow]) -> LatencyPlot:
    published = {one.method: one.latency_ms for one in published_latencies() if one.device == device.name}
    settings = {setting_text(row) for row in rows}
    lines = [
        LatencyLine(
            row.subject.title if len(settings) == 1 else f"{row.subject.title} ({setting_text(row)})",
            row.latency,
            row.verdict.status == "SUSPECT",
            published.get(row.subject.method),
        )
        for row in sorted(rows, key=lambda row: row.latency.value)
    ]
    notes = [f"{sorted(settings)[0]}."] if len(settings) == 1 else []
    if any(line.suspect for line in lines):
        notes.append("Gray: SUSPECT, for the reasons in the table.")
    if any(line.published is not None for line in lines):
        notes.append("Hollow: published, measured by others.")
    return LatencyPlot(f"{device_title(device)}: latency in ms, protocol {protocol}", tuple(lines), tuple(notes))
