"""The dot plot: a collection's accuracy, a dot per cell, a diamond per mean."""

from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.content.aggregate import Row
from reports.content.dot_plot import DotPlot
from reports.content.tables import OTHER, UNDEFINED
from reports.content.vocabulary import metric_title
from reports.rendering.figures.style import FAINT, INK, add_words, context, palette, plain, wrap

_COLOURED_SCENARIOS = 8
_LEGEND_COLUMNS = 4
# Inches.
_ROW_HEIGHT = 0.42
_LABELS = 1.6
_PANEL = 2.6
_GAP = 0.3
_GAP_BELOW = 0.62
# Of a row: the dots' upper band and the line of the means, so that neither hides the other.
_DOTS = (-0.36, 0.06)
_MEANS = 0.24
# Percent that an axis goes beyond 0 and 100, for the markers there.
_BEYOND = 0.8


def draw_dots(plot: DotPlot) -> Figure:
    """Draw a line per method and a panel per metric, at most two panels side by side, in percent."""
    columns = min(2, len(plot.metrics))
    lines = -(-len(plot.metrics) // columns)
    panel = _ROW_HEIGHT * len(plot.rows)
    width, height = _LABELS + columns * (_PANEL + _GAP) - _GAP, lines * (panel + _GAP_BELOW) - _GAP_BELOW
    with context():
        figure = Figure(figsize=(width, height))
        grid = {"left": _LABELS / width, "right": 1.0, "top": 1.0, "bottom": 0.0}
        gaps = {"wspace": _GAP / _PANEL, "hspace": _GAP_BELOW / panel}
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True, gridspec_kw={**grid, **gaps}).ravel()
        for axes, metric in zip(panels, plot.metrics, strict=False):
            _panel(axes, plot, metric)
        for axes in panels[len(plot.metrics) :]:
            axes.set_axis_off()
        handles = _legend(plot)
        rows = -(-len(handles) // _LEGEND_COLUMNS)
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0, -0.34 / height), borderaxespad=0, borderpad=0,
            ncols=_LEGEND_COLUMNS, frameon=False, handletextpad=0.2, columnspacing=1.2,
        )  # fmt: skip
        below = 0.34 + rows * 0.17
        add_words(figure, plot.title, plot.notes, above=0.2, below=below)
    return figure


def _panel(axes: Axes, plot: DotPlot, metric: str) -> None:
    for line, row in enumerate(plot.rows):
        _dots(axes, plot, row, metric, line)
        mean = row.means[metric]
        if mean.value is None:
            axes.text(0.5, line, UNDEFINED, transform=axes.get_yaxis_transform(), ha="center", va="center")
        else:
            spread = 100 * (mean.deviation or 0)
            axes.errorbar(
                100 * mean.value, line + _MEANS, xerr=spread or None, fmt="D", color=INK, ms=5, lw=1.2, zorder=4
            )
        value = plot.published.get((row.variant.method, metric))
        if value is not None:
            axes.plot(100 * value, line + _MEANS, "D", mfc="none", mec=INK, mew=1, ms=7.5, zorder=5)
    marks = ["" if same else f" {OTHER}" for same in plot.same]
    labels = [wrap(plain(row.variant.label), 22) + mark for row, mark in zip(plot.rows, marks, strict=True)]
    axes.set_yticks(range(len(plot.rows)), labels)
    axes.set_ylim(len(plot.rows) - 0.5, -0.5)
    left, right = axes.get_xlim()
    axes.set_xlim(max(left, -_BEYOND), min(right, 100 + _BEYOND))
    axes.set_title(plain(metric_title(metric)), pad=4)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.hlines([line + 0.5 for line in range(len(plot.rows) - 1)], 0, 1, colors="#efefef", linewidth=0.6,
                transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    sns.despine(ax=axes, left=True)


def _dots(axes: Axes, plot: DotPlot, row: Row, metric: str, line: int) -> None:
    """Every cell's value; the scenarios one below the other so that they do not hide each other."""
    # One artist a colour: there may be thousands of cells.
    dots: dict[Any, list[tuple[float, float]]] = {}
    colours = palette(_COLOURED_SCENARIOS)
    indices = {scenario: index for index, scenario in enumerate(plot.scenarios)}
    for result in row.results:
        value = result.record.metrics.get(metric)
        if value is not None:
            index = indices[result.record.scenario]
            offset = _DOTS[0] + (_DOTS[1] - _DOTS[0]) * (index + 0.5) / len(plot.scenarios)
            colour = colours[index] if _coloured(plot) else FAINT
            dots.setdefault(colour, []).append((100 * value, line + offset))
    for colour, places in dots.items():
        axes.plot(*zip(*places, strict=True), "o", color=colour, ms=3.5, alpha=0.75, mew=0, zorder=2)


def _coloured(plot: DotPlot) -> bool:
    return len(plot.scenarios) <= _COLOURED_SCENARIOS


def _legend(plot: DotPlot) -> list[Line2D]:
    def entry(label: str, marker: str, **style: object) -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, label=label, **style)  # type: ignore[arg-type]

    if _coloured(plot):
        colours = palette(_COLOURED_SCENARIOS)
        dots = [
            entry(wrap(plain(scenario), 24, 1), "o", color=colour, ms=4)
            for scenario, colour in zip(plot.scenarios, colours, strict=False)
        ]
    else:
        dots = [entry("one scenario and seed", "o", color=FAINT, ms=4)]
    spread = any(mean.deviation is not None for row in plot.rows for mean in row.means.values())
    means = [entry("mean ± deviation over seeds" if spread else "mean", "D", color=INK, ms=5)]
    published = [entry("published mean", "D", mfc="none", mec=INK, ms=7)] if plot.published else []
    return dots + means + published
