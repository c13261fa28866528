"""VisA as its owners publish it; the form that their converter writes is MVTec AD's.

::

    <collection>/split_csv/1cls.csv                          object,split,label,image,mask
                 <scenario>/Data/Images/Normal/0000.JPG
                                   Images/Anomaly/000.JPG
                                   Masks/Anomaly/000.png     each kind of defect has a number of its own
                 <scenario>/image_anno.csv                   kinds of defects, not read

Which images train and which are tested is said by the owners' split file for one-class detection. A name is the one
that the converter gives: ``test/bad/000``.
"""

from pathlib import Path

from bench.datasets.cache import Cache
from bench.datasets.layouts.assembling import Found, as_test_image, assemble, counted
from bench.datasets.scenario import Scenario, TestImage
from bench.datasets.tables import Row, read_table
from bench.errors import DataError

_SPLIT = Path("split_csv/1cls.csv")
_COLUMNS = ("object", "split", "label", "image", "mask")


class VisA:
    """The layout."""

    title = "VisA as published"
    name = "visa"

    def scenarios(self, collection: Path) -> list[str]:
        """The folders with ``Data/Images``; empty where there are none."""
        return sorted(folder.parents[1].name for folder in collection.glob("*/Data/Images"))

    def read(self, collection: Path, scenario: str, cache: Cache) -> Scenario:
        """List the images that the split file names.

        Raises:
            DataError: The split file is missing or broken, or lists no image of the scenario.
        """
        split = collection / _SPLIT
        if not split.is_file():
            raise DataError(f"{collection} has no {_SPLIT}, which says which images train: get it from its owners")
        rows = [row for row in read_table(split, _COLUMNS).rows if row.text("object") == scenario]
        if not rows:
            raise DataError(f"{split} lists no image of {scenario}: get the whole file from its owners")
        for row in rows:
            _one_of(row, "split", ("train", "test"))
        train = [row for row in rows if row.text("split") == "train"]
        left_out = [row for row in train if not _is_normal(row)]
        found = Found(
            folder=collection / scenario,
            train=tuple(sorted(collection / row.text("image") for row in train if _is_normal(row))),
            test=tuple(_test_image(collection, row) for row in rows if row.text("split") == "test"),
            set_aside=(
                *(collection / row.text(column) for row in left_out for column in ("image", "mask")),
                collection / scenario / "image_anno.csv",
            ),
            notes=counted(len(left_out), "training image", "with a defect left out: only normal ones train"),
        )
        return assemble(found, collection, scenario, __name__, cache)


def _test_image(collection: Path, row: Row) -> TestImage:
    mask = collection / row.text("mask") if row.text("mask") else None
    return as_test_image(collection / row.text("image"), None if _is_normal(row) else "bad", mask)


def _is_normal(row: Row) -> bool:
    return _one_of(row, "label", ("normal", "anomaly")) == "normal"


def _one_of(row: Row, column: str, allowed: tuple[str, ...]) -> str:
    value = row.text(column)
    if value not in allowed:
        raise row.error(column, f"{value!r} is neither {' nor '.join(allowed)}")
    return value


LAYOUT = VisA()
