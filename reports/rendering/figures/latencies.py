"""The plot of latencies: a line per device, or per method of a single one; what was published is hollow and below."""

from collections.abc import Sequence

import seaborn as sns
from matplotlib.figure import Figure

from reports.content.latency_plot import LatencyPlot, LatencyPoint
from reports.rendering.figures.style import (
    FAINT,
    GRID,
    add_legend,
    add_words,
    context,
    entry,
    marked,
    plain,
    scale_logarithmically,
    symbols,
    wrap,
)

# Inches.
_ROW_HEIGHT = 0.34
_LABELS = 2.0
_PANEL = 4.6


def draw_latencies(plot: LatencyPlot) -> Figure:
    """Draw all latencies on one logarithmic axis: a line per device or, of a single device, one per method."""
    style = symbols(plot.labels)
    lines = _lines(plot)
    width, height = _LABELS + _PANEL, max(_ROW_HEIGHT * len(lines), 0.5)
    with context():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((_LABELS / width, 0, _PANEL / width, 1))
        values = []
        for position, (_, published, points) in enumerate(lines):
            for point in points:
                shape = marked(style[point.label], suspect=point.suspect, hollow=published)
                latency = point.latency
                if latency.low is not None and latency.high is not None and latency.low > 0:
                    axes.plot([latency.low, latency.high], [position, position], color=shape["color"], lw=1.2)
                axes.plot(latency.value, position, linestyle="", zorder=3, **shape)
                values.append(latency.value)
        scale_logarithmically(axes.xaxis, values)
        axes.set_yticks(range(len(lines)), [name for name, _, _ in lines])
        axes.set_ylim(len(lines) - 0.5, -0.5)
        measured = sum(not published for _, published, _ in lines)
        if 0 < measured < len(lines):
            axes.axhline(measured - 0.5, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.grid(axis="both", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        sns.despine(ax=axes, left=True)
        below, notes = 0.3, plot.notes
        if len(plot.lines) == 1:
            notes = (f"{plot.lines[0].device}.", *notes)
        else:
            below = add_legend(figure, [entry(label, **marked(style[label], 5)) for label in plot.labels], below)
        add_words(figure, plot.title, notes, below=below)
    return figure


def _lines(plot: LatencyPlot) -> list[tuple[str, bool, Sequence[LatencyPoint]]]:
    """What stands beside each line, whether it was published, and its points."""
    if len(plot.lines) == 1:
        (line,) = plot.lines
        points = sorted(line.points, key=lambda point: point.latency.value)
        return [(wrap(plain(point.label), 36), line.published, [point]) for point in points]
    return [
        (wrap(plain(line.device + (" (published)" if line.published else "")), 36), line.published, line.points)
        for line in plot.lines
    ]
