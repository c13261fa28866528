"""The stage plot: a bar per method, the stages of its pass one after the other."""

from typing import Any

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.content.stage_plot import REST, StagePlot
from reports.rendering.figures.style import GRID, add_legend, add_words, context, palette, plain, wrap

# Inches.
_ROW_HEIGHT = 0.3
_LABELS = 1.8
_PANEL = 4.6
_REST = "#d0d0d0"
_HATCHES = ("", "////", "....", "xxxx")


def draw_stages(plot: StagePlot) -> Figure:
    """Draw every method's stages in ms, from the transfer to the map, what is left of the pass in gray."""
    colours = palette(10)
    style: dict[str, dict[str, Any]] = {
        name: {"facecolor": colours[index % 10], "hatch": _HATCHES[index // 10 % 4]}
        for index, name in enumerate(plot.names)
    }
    style[REST] = {"facecolor": _REST, "hatch": ""}
    width, height = _LABELS + _PANEL, max(_ROW_HEIGHT * len(plot.bars), 0.5)
    with context():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((_LABELS / width, 0, _PANEL / width, 1))
        for position, bar in enumerate(plot.bars):
            left = 0.0
            for name, value in bar.stages.items():
                axes.barh(position, value, 0.66, left, edgecolor="white", linewidth=0.4, **style[name])
                left += value
            axes.annotate(f"{left:.3g}", (left, position), (3, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(plot.bars)), [wrap(plain(bar.label), 30) for bar in plot.bars])
        axes.set_ylim(len(plot.bars) - 0.5, -0.5)
        axes.set_xlim(0, 1.08 * max(sum(bar.stages.values()) for bar in plot.bars))
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        sns.despine(ax=axes, left=True)
        shown = [name for name in plot.names if any(name in bar.stages for bar in plot.bars)]
        handles = [Patch(edgecolor="white", label=name, **style[name]) for name in shown]
        below = add_legend(figure, handles, 0.3)
        add_words(figure, plot.title, plot.notes, below=below)
    return figure
