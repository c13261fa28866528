"""Draws the qualitative figure: test images, their ground truth, and each method's anomaly map."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from reports.content.example_sheet import ExampleSheet
from reports.rendering.figures.style import FAINT, FONT_SIZE, add_words, context, plain, wrap
from results.arrays import Example

_COLOURS = "viridis"
_WIDTH = 1.15


def draw_examples(sheet: ExampleSheet) -> Figure:
    """Draw a row per test image: the image, its ground truth, each method's map in that method's own colour scale."""
    rows, columns = len(sheet.names), 2 + len(sheet.methods)
    shapes = [sheet.images[name].map.shape for name in sheet.names]
    aspect = float(np.clip(np.median([height / width for height, width in shapes]), 0.3, 1.6))
    bar = 0.42
    height = rows * _WIDTH * aspect + bar
    with context():
        figure = Figure(figsize=(columns * _WIDTH, height))
        grid = figure.add_gridspec(
            rows + 1, columns, height_ratios=[_WIDTH * aspect] * rows + [bar],
            left=0, right=1, top=1, bottom=0, wspace=0.05, hspace=0.05,
        )  # fmt: skip
        for row, name in enumerate(sheet.names):
            example = sheet.images[name]
            _picture(figure.add_subplot(grid[row, 0]), example.image)
            # On the cell, not on the axes, which are narrower than it for an upright image: the labels stay in line.
            cell = grid[row, 0].get_position(figure)
            words = wrap(plain(sheet.defects[name].replace("_", " ")), max(8, int(14 * aspect)), 2)
            figure.text(
                -0.05 / (columns * _WIDTH), (cell.y0 + cell.y1) / 2, words,
                rotation=90, ha="right", va="center", multialignment="center",
            )  # fmt: skip
            truth = figure.add_subplot(grid[row, 1])
            if example.mask is None:
                _none(_bare(truth), "not marked")
            else:
                _picture(truth, np.where(example.mask, 255, 40).astype(np.uint8))
        for column, (label, examples) in enumerate(sheet.methods, start=2):
            _method(figure, grid, column, examples, sheet.names)
            figure.axes[-len(sheet.names) - 1].set_title(wrap(plain(label), 17), pad=4)
        figure.axes[0].set_title("Image", pad=4)
        figure.axes[1].set_title("Ground truth", pad=4)
        add_words(figure, sheet.title, sheet.notes, above=0.32)
    return figure


def _picture(axes: Axes, pixels: npt.NDArray[np.uint8]) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    _bare(axes)


def _none(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color=FAINT)


def _bare(axes: Axes) -> Axes:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.4)
    return axes


def _method(figure: Figure, grid: GridSpec, column: int, examples: Mapping[str, Example], names: Sequence[str]) -> None:
    maps = [examples[name].map for name in names if name in examples]
    lowest, highest = min(float(array.min()) for array in maps), max(float(array.max()) for array in maps)
    scale = Normalize(lowest, highest)
    shown = None
    for row, name in enumerate(names):
        axes = _bare(figure.add_subplot(grid[row, column]))
        if name in examples:
            shown = axes.imshow(examples[name].map, cmap=_COLOURS, norm=scale, interpolation="nearest")
        else:
            _none(axes, "no map")
    holder = figure.add_subplot(grid[len(names), column])
    holder.set_axis_off()
    if shown is not None:
        axes = holder.inset_axes((0.06, 0.62, 0.88, 0.2))
        bar = figure.colorbar(shown, cax=axes, orientation="horizontal")
        bar.set_ticks([lowest, highest], labels=[_short(lowest), _short(highest)])
        axes.tick_params(labelsize=FONT_SIZE - 1, length=2)
        left, right = axes.get_xticklabels()
        left.set_horizontalalignment("left")
        right.set_horizontalalignment("right")


def _short(value: float) -> str:
    """Print a number in three digits, without the zeros of its exponent: ``7.18e3``."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.3g}")
