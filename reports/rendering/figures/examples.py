"""The qualitative figure: test images, their ground truth, and each method's anomaly map."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from reports.content.selection import Cell
from reports.rendering.figures.style import FAINT, FONT_SIZE, add_words, context, plain, wrap
from results.arrays import Example, read_examples

METHODS_PER_FIGURE = 6
_COLOURS = "viridis"
_WIDTH = 1.15


@dataclass(frozen=True)
class ExampleSheet:
    """What one figure shows.

    Attributes:
        title: Collection, scenario and seed.
        names: The images, a row each.
        defects: By image name: defect type, or that it is normal.
        images: By image name: one of the methods' examples, for the image and its ground truth.
        methods: Label and its examples by image name, a column each.
        notes: What the figure must say.
    """

    title: str
    names: tuple[str, ...]
    defects: Mapping[str, str]
    images: Mapping[str, Example]
    methods: tuple[tuple[str, Mapping[str, Example]], ...]
    notes: tuple[str, ...]


def example_sheets(cells: Sequence[Cell], notes: Sequence[str]) -> list[ExampleSheet]:
    """Gather the examples of one scenario, of its first seed, at most six methods to a figure.

    Empty if no cell of that seed kept examples.

    Raises:
        results.errors.ResultError: An examples file is damaged.
    """
    kept = [(cell, examples) for cell in cells if cell.ok and (examples := _examples(cell))]
    if not kept:
        return []
    seed = min(cell.record.seed for cell, _ in kept)
    kept = [(cell, examples) for cell, examples in kept if cell.record.seed == seed]
    images = {name: example for _, examples in reversed(kept) for name, example in examples.items()}
    results = {result.name: result for cell, _ in kept for result in cell.record.images}
    ordered = sorted(images, key=lambda name: (name in results and results[name].anomalous, name))
    defects = {
        name: (results[name].defect if results[name].anomalous else "normal") if name in results else ""
        for name in images
    }
    record = kept[0][0].record
    parts = [kept[start : start + METHODS_PER_FIGURE] for start in range(0, len(kept), METHODS_PER_FIGURE)]
    return [
        ExampleSheet(
            title=f"{record.collection.title}, {record.scenario}, seed {seed}"
            + (f", part {number} of {len(parts)}" if len(parts) > 1 else ""),
            names=tuple(ordered),
            defects=defects,
            images=images,
            methods=tuple((cell.variant.label, examples) for cell, examples in part),
            notes=(*notes, "Images are chosen by name, not by score. Each method has its own colour scale."),
        )
        for number, part in enumerate(parts, start=1)
    ]


def _examples(cell: Cell) -> dict[str, Example]:
    if cell.directory is None:
        return {}
    return {example.name: example for example in read_examples(cell.directory)}


def draw_examples(sheet: ExampleSheet) -> Figure:
    """Draw a row per test image: the image, its ground truth, each method's map in that method's own colour scale."""
    rows, columns = len(sheet.names), 2 + len(sheet.methods)
    shapes = [sheet.images[name].mask.shape for name in sheet.names]
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
            _picture(figure.add_subplot(grid[row, 1]), np.where(example.mask, 255, 40).astype(np.uint8))
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
            axes.text(0.5, 0.5, "no map", ha="center", va="center", transform=axes.transAxes, color=FAINT)
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
