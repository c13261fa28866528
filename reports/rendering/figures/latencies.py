"""The latency plot: a line per method, its mean with the interval between processes, what was published hollow."""

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.content.latency_plot import LatencyPlot
from reports.rendering.figures.style import FAINT, INK, add_words, context, plain, wrap

# Inches.
_ROW_HEIGHT = 0.24
_LABELS = 1.7
_PANEL = 4.4


def draw_latencies(plot: LatencyPlot) -> Figure:
    """Draw a dot per method on a logarithmic axis, the fastest on top."""
    height = max(_ROW_HEIGHT * len(plot.lines), 0.5)
    width = _LABELS + _PANEL
    with context():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((_LABELS / width, 0, _PANEL / width, 1))
        for position, line in enumerate(plot.lines):
            colour, estimate = FAINT if line.suspect else INK, line.latency
            if estimate.low is not None and estimate.high is not None:
                axes.plot([max(estimate.low, 1e-3), estimate.high], [position, position], color=colour, lw=1.2)
            axes.plot(estimate.value, position, "D", color=colour, ms=5, zorder=3)
            if line.published is not None:
                axes.plot(line.published, position, "D", mfc="none", mec=INK, mew=1, ms=7.5, zorder=4)
        axes.set_xscale("log")
        values = [line.latency.value for line in plot.lines]
        values += [line.published for line in plot.lines if line.published is not None]
        axes.set_xlim(min(values) / 1.5, max(values) * 1.5)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(plot.lines)), [wrap(plain(line.label), 26, 1) for line in plot.lines])
        axes.set_ylim(len(plot.lines) - 0.5, -0.5)
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        sns.despine(ax=axes, left=True)
        add_words(figure, plot.title, plot.notes, below=0.25)
    return figure
