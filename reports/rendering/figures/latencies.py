"""The plot of latencies: a line per device, a marker per method; what was published is hollow and below the rest."""

import seaborn as sns
from matplotlib.figure import Figure

from reports.content.latency_plot import LatencyLine, LatencyPlot
from reports.rendering.figures.style import (
    FAINT,
    GRID,
    add_legend,
    add_words,
    context,
    entry,
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
    """Draw every device's latencies on one logarithmic axis."""
    width, height = _LABELS + _PANEL, max(_ROW_HEIGHT * len(plot.lines), 0.5)
    style = symbols(plot.labels)
    with context():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((_LABELS / width, 0, _PANEL / width, 1))
        values = []
        for position, line in enumerate(plot.lines):
            for point in line.points:
                shape = {**style[point.label], **({"color": FAINT} if point.suspect else {})}
                hollow = {"mfc": "none", "mec": shape["color"], "mew": 1.1} if line.published else {"mew": 0}
                latency = point.latency
                if latency.low is not None and latency.high is not None and latency.low > 0:
                    axes.plot([latency.low, latency.high], [position, position], color=shape["color"], lw=1.2)
                axes.plot(latency.value, position, linestyle="", ms=5.5, zorder=3, **shape, **hollow)
                values.append(latency.value)
        scale_logarithmically(axes.xaxis, values)
        axes.set_yticks(range(len(plot.lines)), [_name(line) for line in plot.lines])
        axes.set_ylim(len(plot.lines) - 0.5, -0.5)
        measured = sum(not line.published for line in plot.lines)
        if 0 < measured < len(plot.lines):
            axes.axhline(measured - 0.5, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.grid(axis="both", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        sns.despine(ax=axes, left=True)
        below = add_legend(figure, [entry(label, **style[label]) for label in plot.labels], 0.3)
        add_words(figure, plot.title, plot.notes, below=below)
    return figure


def _name(line: LatencyLine) -> str:
    return wrap(plain(line.device + (" (published)" if line.published else "")), 36)
