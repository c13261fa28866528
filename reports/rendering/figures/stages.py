"""The plot of stages: a bar per row, which the parts of a pass fill from left to right."""

from typing import Any

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reports.content.timing_stages import StagePlot
from reports.content.timings import milliseconds
from reports.rendering.figures.style import GRID, add_legend, add_words, context, palette, plain, wrap

# Inches.
_ROW_HEIGHT = 0.34
_LABELS = 2.0
_PANEL = 4.6
_TOTALS = 0.7

_GRAYS = {
    "transfer to device": "#4d4d4d",
    "preprocessing": "#7a7a7a",
    "between stages": "#f2f2f2",
    "post": "#a8a8a8",
    "transfer back": "#cfcfcf",
}
"""Of what every detector has; colours are for its own parts."""
_HATCHES = ("", "////", "....")


def draw_stages(plot: StagePlot) -> Figure:
    """Draw every pass as long as the others, in shares, with its milliseconds beside it."""
    width, height = _LABELS + _PANEL + _TOTALS, max(_ROW_HEIGHT * len(plot.bars), 0.5)
    own = [name for name in plot.names if name not in _GRAYS]
    colours = [colour for colour in palette(10) if len({round(part, 2) for part in colour}) > 1]
    styles: dict[str, dict[str, Any]] = {
        name: {"facecolor": colours[number % 9], "hatch": _HATCHES[number // 9 % 3]} for number, name in enumerate(own)
    } | {name: {"facecolor": gray, "hatch": ""} for name, gray in _GRAYS.items()}
    with context():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((_LABELS / width, 0, _PANEL / width, 1))
        for position, bar in enumerate(plot.bars):
            left = 0.0
            for name, value in bar.parts:
                share = 100 * value / bar.total
                axes.barh(position, share, left=left, height=0.7, edgecolor="white", linewidth=0.4, **styles[name])
                left += share
            axes.text(101.5, position, f"{milliseconds(bar.total)} ms", va="center")
        axes.set_yticks(range(len(plot.bars)), [wrap(plain(bar.label), 36) for bar in plot.bars])
        axes.set(xlim=(0, 100), ylim=(len(plot.bars) - 0.5, -0.5), xlabel="Share of a pass in percent")
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        sns.despine(ax=axes, left=True)
        handles = [Patch(label=name, edgecolor="#bbbbbb", linewidth=0.4, **styles[name]) for name in plot.names]
        below = add_legend(figure, handles, 0.5)
        add_words(figure, plot.title, plot.notes, below=below)
    return figure
