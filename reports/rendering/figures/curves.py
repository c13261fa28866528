"""The plot of curves: throughput by batch size, latency by size of images or memory banks."""

import math
from collections.abc import Sequence
from itertools import pairwise

import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from reports.content.timing_curves import CurvePlot
from reports.rendering.figures.style import (
    GRID,
    INK,
    add_legend,
    add_words,
    context,
    marked,
    scale_logarithmically,
    symbols,
)

# Inches.
_SIZE = (5.0, 3.0)
_ROOM = 0.09
"""Of the axis, that the label of a place takes."""


def draw_curves(plot: CurvePlot) -> Figure:
    """Draw a line per method on logarithmic axes, with intervals between processes."""
    style = symbols([curve.label for curve in plot.curves])
    with context():
        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes((0, 0, 1, 1))
        handles = []
        for curve in plot.curves:
            shape = marked(style[curve.label], 4.5, suspect=curve.suspect)
            places = [place for place, _ in curve.points]
            values = [estimate.value for _, estimate in curve.points]
            (line,) = axes.plot(places, values, lw=1.2, label=curve.label, **shape)
            handles.append(line)
            for place, estimate in curve.points:
                if estimate.low is not None and estimate.high is not None and estimate.low > 0:
                    axes.plot([place, place], [estimate.low, estimate.high], color=shape["color"], lw=1)
                if place == curve.marked:
                    axes.plot(place, estimate.value, "o", mfc="none", mec=INK, mew=0.9, ms=9, zorder=4)
        points = [point for curve in plot.curves for point in curve.points]
        places = sorted({place for place, _ in points})
        scale_logarithmically(axes.xaxis, places)
        scale_logarithmically(axes.yaxis, [estimate.value for _, estimate in points])
        if _have_room(places):
            axes.xaxis.set_major_locator(FixedLocator(places))
            axes.xaxis.set_minor_locator(FixedLocator([]))
        axes.set_xlabel(plot.abscissa)
        axes.set_ylabel(plot.ordinate)
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        sns.despine(ax=axes)
        notes = plot.notes
        if any(curve.suspect for curve in plot.curves):
            notes = (*notes, "Half filled: SUSPECT, for the reasons in the tables.")
        below = add_legend(figure, handles, 0.5)
        add_words(figure, plot.title, notes, below=below)
    return figure


def _have_room(places: Sequence[float]) -> bool:
    whole = math.log(places[-1] / places[0])
    return all(math.log(after / place) > _ROOM * whole for place, after in pairwise(places))
