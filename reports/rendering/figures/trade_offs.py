"""The plot of accuracy against latency and throughput, with the Pareto front."""

from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.content.trade_off import TradeOffPanel, TradeOffPlot
from reports.content.vocabulary import metric_title
from reports.rendering.figures.style import (
    GRID,
    INK,
    add_legend,
    add_words,
    context,
    entry,
    marked,
    plain,
    scale_logarithmically,
    symbols,
)

# Inches.
_PANEL = (2.9, 2.3)
_GAP = (0.55, 0.5)
_TITLES = {"latency": "Latency in ms", "throughput": "Throughput in images/s"}


def draw_trade_offs(plot: TradeOffPlot) -> Figure:
    """Draw a panel per metric and measure of time, accuracy upwards in percent."""
    style = symbols(plot.labels)
    columns = min(2, len({panel.speed for panel in plot.panels}))
    lines = -(-len(plot.panels) // columns)
    width = columns * (_PANEL[0] + _GAP[0]) - _GAP[0]
    height = lines * (_PANEL[1] + _GAP[1]) - _GAP[1]
    with context():
        figure = Figure(figsize=(width, height))
        grid = {"left": 0.0, "right": 1.0, "top": 1.0, "bottom": 0.0}
        gaps = {"wspace": _GAP[0] / _PANEL[0], "hspace": _GAP[1] / _PANEL[1]}
        panels = figure.subplots(lines, columns, squeeze=False, gridspec_kw={**grid, **gaps}).ravel()
        for axes, panel in zip(panels, plot.panels, strict=True):
            _panel(axes, panel, style)
        below = add_legend(figure, [entry(label, **marked(style[label], 5)) for label in plot.labels], 0.5)
        add_words(figure, plot.title, plot.notes, below=below)
    return figure


def _panel(axes: Axes, panel: TradeOffPanel, style: dict[str, dict[str, Any]]) -> None:
    for point in panel.points:
        shape = marked(style[point.label], suspect=point.suspect)
        x, y = point.speed, point.accuracy
        if x.low is not None and x.high is not None and x.low > 0:
            axes.plot([x.low, x.high], [100 * y.value] * 2, color=shape["color"], lw=1)
        if y.low is not None and y.high is not None:
            axes.plot([x.value] * 2, [100 * y.low, 100 * y.high], color=shape["color"], lw=1)
        edge = {"mec": INK, "mew": 0.9} if point.front else {}
        axes.plot(x.value, 100 * y.value, linestyle="", zorder=3, **{**shape, **edge})
    front = sorted((point.speed.value, 100 * point.accuracy.value) for point in panel.points if point.front)
    if len(front) > 1:
        # Between two methods of the front nothing is reached but what the slower or the less accurate one does.
        steps = "steps-post" if panel.speed == "latency" else "steps-pre"
        axes.plot(*zip(*front, strict=True), color=INK, lw=0.8, drawstyle=steps, zorder=1)
    scale_logarithmically(axes.xaxis, [point.speed.value for point in panel.points])
    axes.set_xlabel(_TITLES[panel.speed])
    axes.set_ylabel(plain(f"{metric_title(panel.metric)} in percent"))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    sns.despine(ax=axes)
