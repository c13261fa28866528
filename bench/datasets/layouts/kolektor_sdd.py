"""KolektorSDD as its owners publish it.

::

    <collection>/kos01/Part0.jpg   Part0_label.bmp
                 …
                 kos50/Part7.jpg   Part7_label.bmp     nothing marked: a normal image

It was made for supervised training in three folds, so there is no split for training on normal images alone. The rule
here: every image with a defect is tested; of the normal images, those of every fifth item (kos05, kos10, …) are tested
too, and the others train. All normal images of an item are on one side, because they show the same commutator.
"""

import re
from pathlib import Path

from bench.datasets.cache import Cache
from bench.datasets.layouts.assembling import Found, as_test_image, assemble
from bench.datasets.layouts.marked import marked
from bench.datasets.scenario import Scenario

_NAME = "kolektor_sdd"
_ITEM = re.compile(r"kos(\d+)")
_TESTED = 5
"""Of so many items, the normal images of one are tested."""


class KolektorSDD:
    """The layout."""

    title = "KolektorSDD as published"
    name = "kolektor_sdd"

    def scenarios(self, collection: Path) -> list[str]:
        """The one scenario, where there are folders like ``kos01`` with images like ``Part0.jpg``; else empty."""
        return [_NAME] if any(_item(image) for image in collection.glob("kos*/Part*.jpg")) else []

    def read(self, collection: Path, scenario: str, cache: Cache) -> Scenario:
        """List the images; those without any marked pixel are normal.

        Raises:
            DataError: A mask cannot be read.
        """
        images = sorted(image for image in collection.glob("kos*/Part*.jpg") if _item(image))
        masks = {image: image.with_name(f"{image.stem}_label.bmp") for image in images}
        labelled = [image for image in images if masks[image].is_file()]
        defective = dict(zip(labelled, marked([masks[image] for image in labelled], cache), strict=True))
        train = [image for image in labelled if not defective[image] and _item(image) % _TESTED]
        tested = [image for image in labelled if defective[image] or not _item(image) % _TESTED]
        found = Found(
            folder=collection,
            train=tuple(train),
            test=tuple(
                as_test_image(image, "defect" if defective[image] else None, masks[image], stem=_name(image))
                for image in tested
            ),
            set_aside=tuple(masks[image] for image in labelled if not defective[image]),
            problems=tuple(
                f"{masks[image]} is missing, which says whether {image} shows a defect"
                for image in images
                if image not in defective
            ),
        )
        return assemble(found, collection, scenario, __name__, cache)


def _item(image: Path) -> int:
    """The number of the item that an image shows; 0 where its folder is none of an item."""
    match = _ITEM.fullmatch(image.parent.name)
    return int(match[1]) if match else 0


def _name(image: Path) -> str:
    return f"{image.parent.name}_{image.stem}"


LAYOUT = KolektorSDD()
