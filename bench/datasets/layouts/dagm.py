"""DAGM 2007 as its owners publish it.

::

    <collection>/Class1/Train/0576.PNG   Train/Label/0576_label.PNG
                        Test/0001.PNG    Test/Label/0001_label.PNG     a mask: the image shows a defect
                        …                …/Label/Labels.txt            number, 0 or 1 (a defect), image, …

The training images hold defects, for supervised training. The rule here: only the normal ones train, the others are
left out, and the test images are the owners'.
"""

from pathlib import Path

from bench.datasets.accounting import images_in
from bench.datasets.cache import Cache
from bench.datasets.layouts.assembling import Found, as_test_image, assemble, counted
from bench.datasets.scenario import Scenario
from bench.errors import DataError

_LIST = "Labels.txt"


class DAGM:
    """The layout."""

    title = "DAGM 2007 as published"
    name = "dagm"

    def scenarios(self, collection: Path) -> list[str]:
        """The folders with ``Train/Label`` and ``Test``; empty where there are none."""
        found = (label.parents[1] for label in collection.glob("*/Train/Label"))
        return sorted(
            (folder.name for folder in found if (folder / "Test").is_dir()), key=lambda name: (len(name), name)
        )

    def read(self, collection: Path, scenario: str, cache: Cache) -> Scenario:
        """List the images; those with a mask show a defect.

        Raises:
            DataError: A list of labels is broken.
        """
        folder = collection / scenario
        images = {split: images_in(folder / split) for split in ("Train", "Test")}
        masks = {image: _mask(image) for split in images.values() for image in split}
        left_out = [image for image in images["Train"] if masks[image].is_file()]
        found = Found(
            folder=folder,
            train=tuple(image for image in images["Train"] if not masks[image].is_file()),
            test=tuple(
                as_test_image(image, "defect" if masks[image].is_file() else None, masks[image])
                for image in images["Test"]
            ),
            set_aside=(*left_out, *map(_mask, left_out), *(folder / split / "Label" / _LIST for split in images)),
            notes=counted(len(left_out), "training image", "with a defect left out: only normal ones train"),
            problems=tuple(problem for split in images for problem in _contradictions(folder / split)),
        )
        return assemble(found, collection, scenario, __name__, cache)


def _mask(image: Path) -> Path:
    return image.parent / "Label" / f"{image.stem}_label{image.suffix}"


def _contradictions(split: Path) -> list[str]:
    """Where the list of labels and the masks disagree."""
    listed = split / "Label" / _LIST
    return [
        f"{listed} says that {name} shows {'a' if defective else 'no'} defect, but "
        f"{_mask(split / name).name} {'is missing' if defective else 'is there'}"
        for name, defective in _labels(listed).items()
        if (split / name).is_file() and defective != _mask(split / name).is_file()
    ]


def _labels(file: Path) -> dict[str, bool]:
    """What a list of labels says of each image; nothing where it is missing, as in some mirrors."""
    if not file.is_file():
        return {}
    labels = {}
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        cells = line.split()
        if len(cells) < 3:
            continue  # the number of the class, or an empty line
        if cells[1] not in ("0", "1"):
            raise DataError(f"cannot read {file}: line {number}, column 2: {cells[1]!r} is neither 0 nor 1")
        labels[cells[2]] = cells[1] == "1"
    return labels


LAYOUT = DAGM()
