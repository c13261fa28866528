"""Pictures of what scenarios consist of, in the style of the reports."""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from bench.datasets.statistics import Statistics
from reports.rendering.figures.style import FAINT, INK, add_words, context, palette, plain, wrap

_COLOURS = 8
_LEGEND_COLUMNS = 3
_GOLDEN = 0.6180339887
"""Multiples of it fill a row evenly, so that dots of like areas do not hide each other, without any chance."""
# Inches.
_ROW_HEIGHT = 0.42
_LABELS = 1.75
_PANEL = 4.1
_COUNTS = 0.5
_SQUARE = 3.6
# Of a row: the band of the dots, and the line of the quartiles.
_DOTS = (-0.38, 0.1)
_QUARTILES = 0.27


def draw_defect_areas(scenarios: Sequence[Statistics]) -> Figure:
    """Draw the distribution of defect areas: a line per scenario, a dot per region, on a logarithmic axis.

    Args:
        scenarios: Those without defect regions are left out; one at least has some.
    """
    shown = [scenario for scenario in scenarios if scenario.shares.size]
    colours = _colours(shown)
    width, height = _LABELS + _PANEL + _COUNTS, _ROW_HEIGHT * len(shown)
    with context():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((_LABELS / width, 0, _PANEL / width, 1))
        for line, scenario in enumerate(shown):
            _area_row(axes, scenario, line, colours[scenario.title])
        side = shown[0].side
        axes.axvline(100 / side**2, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yticks(range(len(shown)), [wrap(plain(scenario.scenario), 26) for scenario in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel("area of a defect region, % of its image")
        axes.text(1.02, -0.5, "regions", transform=axes.get_yaxis_transform(), va="bottom", color="#444444")
        axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="both", length=0)
        sns.despine(ax=axes, left=True)
        axes.spines["bottom"].set_color(FAINT)
        notes = (
            "A dot is an 8-connected region of a mask; the diamond is the median, the thick line the middle half, the "
            "thin one all.",
            f"Dashed: one pixel of {side}×{side}, to which masks are commonly resized.",
        )
        title = "Areas of the defects"
        add_words(figure, title, notes, below=0.42 + _legend(figure, colours, 0.46))
    return figure


def draw_image_sizes(scenarios: Sequence[Statistics]) -> Figure:
    """Draw the sizes of the images: a circle per size and scenario, its area follows the number of images."""
    colours = _colours(scenarios)
    with context():
        figure = Figure(figsize=(_SQUARE, _SQUARE))
        axes = figure.add_axes((0, 0, 1, 1))
        largest = max(max(size) for scenario in scenarios for size in scenario.sizes)
        for scenario in scenarios:
            heights, widths = np.array(list(scenario.sizes)).T
            counts = np.array(list(scenario.sizes.values()))
            colour = colours[scenario.title]
            axes.scatter(widths, heights, s=8 + 4 * np.sqrt(counts), color=colour, alpha=0.45, linewidths=0, zorder=3)
        axes.plot([0, largest], [0, largest], color=FAINT, linewidth=0.8, zorder=1)
        axes.set_xlim(0, largest * 1.05)
        axes.set_ylim(0, largest * 1.05)
        axes.set_xlabel("width, pixels")
        axes.set_ylabel("height, pixels")
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="both", length=0)
        sns.despine(ax=axes)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        notes = ("A circle is a size in a scenario, the larger the more images; squares lie on the line.",)
        add_words(figure, "Sizes of the images", notes, below=0.42 + _legend(figure, colours, 0.46))
    return figure


def _area_row(axes: Axes, scenario: Statistics, line: int, colour: tuple[float, float, float]) -> None:
    shares = 100 * np.sort(scenario.shares)
    jitter = _DOTS[0] + (_DOTS[1] - _DOTS[0]) * (np.arange(shares.size) * _GOLDEN % 1)
    axes.plot(shares, line + jitter, "o", color=colour, ms=2.6, alpha=0.55, mew=0, zorder=3)
    lower, median, upper, largest = (100 * share for share in scenario.quartiles)
    axes.plot([shares[0], largest], [line + _QUARTILES] * 2, color=INK, linewidth=0.7, zorder=3)
    axes.plot([lower, upper], [line + _QUARTILES] * 2, color=INK, linewidth=2.6, solid_capstyle="butt", zorder=3)
    axes.plot(median, line + _QUARTILES, "D", color="white", mec=INK, mew=1, ms=4, zorder=4)
    axes.text(1.02, line, f"{shares.size:,}", transform=axes.get_yaxis_transform(), va="center", color="#444444")
    if line:
        axes.axhline(line - 0.5, color="#efefef", linewidth=0.6)


def _colours(scenarios: Sequence[Statistics]) -> dict[str, tuple[float, float, float]]:
    """A colour per collection; beyond eight they repeat."""
    titles = list(dict.fromkeys(scenario.title for scenario in scenarios))
    return {title: palette(_COLOURS)[index % _COLOURS] for index, title in enumerate(titles)}


def _legend(figure: Figure, colours: dict[str, tuple[float, float, float]], below: float) -> float:
    """Say below the figure which colour is which collection.

    Args:
        figure: With its axes.
        colours: By title.
        below: Inches between the figure and the legend.

    Returns:
        Its height in inches; nothing is drawn for one collection.
    """
    if len(colours) < 2:
        return 0.0
    handles = [
        Line2D([], [], linestyle="", marker="o", color=colour, ms=4, label=wrap(plain(title), 28, 1))
        for title, colour in colours.items()
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0, -below / figure.get_size_inches()[1]), borderaxespad=0,
        borderpad=0, ncols=_LEGEND_COLUMNS, frameon=False, handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    return 0.1 + 0.17 * -(-len(handles) // _LEGEND_COLUMNS)
