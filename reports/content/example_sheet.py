"""What the qualitative figure shows: test images, their ground truth, and each method's anomaly map."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.content.selection import Result
from results.arrays import Example, read_examples

METHODS_PER_FIGURE = 6


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


def example_sheets(results: Sequence[Result], notes: Sequence[str]) -> list[ExampleSheet]:
    """Gather the examples of one scenario, of its first seed, at most six methods to a figure.

    Empty if no cell of that seed kept examples.

    Raises:
        results.errors.ResultError: An examples file is damaged.
    """
    for seed in sorted({result.record.seed for result in results if result.ok}):
        own = [result for result in results if result.ok and result.record.seed == seed]
        kept = [(result, examples) for result in own if (examples := _examples(result))]
        if kept:
            return _sheets(kept, notes)
    return []


def _sheets(kept: Sequence[tuple[Result, Mapping[str, Example]]], notes: Sequence[str]) -> list[ExampleSheet]:
    """Show the examples of some cells of the same scenario and seed."""
    images = {name: example for _, examples in reversed(kept) for name, example in examples.items()}
    tested = {image.name: image for result, _ in kept for image in result.record.images}
    ordered = sorted(images, key=lambda name: (name in tested and tested[name].anomalous, name))
    defects = {
        name: (tested[name].defect if tested[name].anomalous else "normal") if name in tested else "" for name in images
    }
    record = kept[0][0].record
    parts = [kept[start : start + METHODS_PER_FIGURE] for start in range(0, len(kept), METHODS_PER_FIGURE)]
    return [
        ExampleSheet(
            title=f"{record.collection.title}, {record.scenario}, seed {record.seed}"
            + (f", part {number} of {len(parts)}" if len(parts) > 1 else ""),
            names=tuple(ordered),
            defects=defects,
            images=images,
            methods=tuple((result.variant.label, examples) for result, examples in part),
            notes=(*notes, "Images are chosen by name, not by score. Each method has its own colour scale."),
        )
        for number, part in enumerate(parts, start=1)
    ]


def _examples(result: Result) -> dict[str, Example]:
    if result.directory is None:
        return {}
    return {example.name: example for example in read_examples(result.directory)}
