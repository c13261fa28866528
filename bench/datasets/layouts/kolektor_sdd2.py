"""KolektorSDD2 as its owners publish it.

::

    <collection>/train/10000.png   10000_GT.png
                 test/20000.png    20000_GT.png     nothing marked: a normal image

The training images hold defects, for supervised training. The rule here: only the normal ones train, the others are
left out, and the test images are the owners'. Copies such as ``10301 (copy).png``, of which the published archive has
one with its mask, are left out.
"""

import re
from pathlib import Path

from bench.datasets.cache import Cache
from bench.datasets.layouts.assembling import Found, as_test_image, assemble, counted
from bench.datasets.layouts.marked import marked
from bench.datasets.scenario import Scenario

_NAME = "kolektor_sdd2"
_IMAGE = re.compile(r"\d+\.png")


class KolektorSDD2:
    """The layout."""

    title = "KolektorSDD2 as published"
    name = "kolektor_sdd2"

    def scenarios(self, collection: Path) -> list[str]:
        """The one scenario, where ``train`` or ``test`` has masks like ``10000_GT.png``; else empty."""
        return [_NAME] if any(collection.glob("train/*_GT.png")) or any(collection.glob("test/*_GT.png")) else []

    def read(self, collection: Path, scenario: str, cache: Cache) -> Scenario:
        """List the images; those without any marked pixel are normal.

        Raises:
            DataError: A mask cannot be read.
        """
        images = [image for split in ("train", "test") for image in sorted((collection / split).glob("*.png"))]
        images = [image for image in images if _IMAGE.fullmatch(image.name)]
        masks = {image: image.with_name(f"{image.stem}_GT.png") for image in images}
        labelled = [image for image in images if masks[image].is_file()]
        defective = dict(zip(labelled, marked([masks[image] for image in labelled], cache), strict=True))
        train = [image for image in labelled if image.parent.name == "train"]
        left_out = [image for image in train if defective[image]]
        copies = sorted(collection.glob("t*/* (copy).png"))
        found = Found(
            folder=collection,
            train=tuple(image for image in train if not defective[image]),
            test=tuple(
                as_test_image(image, "defect" if defective[image] else None, masks[image])
                for image in labelled
                if image.parent.name == "test"
            ),
            set_aside=(*left_out, *(masks[image] for image in train), *masks.values(), *copies),
            notes=(
                *counted(len(left_out), "training image", "with a defect left out: only normal ones train"),
                *counted(len(copies), "file", "named (copy) left out"),
            ),
            problems=tuple(
                f"{masks[image]} is missing, which says whether {image} shows a defect"
                for image in images
                if image not in defective
            ),
        )
        return assemble(found, collection, scenario, __name__, cache)


LAYOUT = KolektorSDD2()
