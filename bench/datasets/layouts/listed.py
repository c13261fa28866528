"""Images of a user's own, wherever they are, listed in a table.

::

    <collection>/scenarios.csv             all scenarios; column ``scenario`` tells them apart
                 <scenario>/scenario.csv   or one of them

Both may be ``.parquet`` or ``.pq`` too. The columns, in any order and case:

- ``path``: the image, absolute or relative to the table's folder;
- ``split``: ``train``, ``validation`` or ``test``;
- ``label``: ``normal`` (also ``good``, ``ok``, ``0``) or ``anomalous`` (also ``anomaly``, ``bad``, ``1``);
- ``mask``: the ground truth of an anomalous test image; without any, only image metrics are defined;
- ``defect``: its kind, ``bad`` where empty; ``condition``: the light or view; ``scenario``: in ``scenarios.csv``, the
  collection's name where empty. These three, and ``mask``, may be missing.

Only normal images train. An image is called ``test/<defect>/<stem>``, as in a folder; where several of a scenario would
be called so, by their whole path with ``_`` for ``/``.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from bench.datasets.accounting import entries, is_file, is_folder
from bench.datasets.cache import Cache
from bench.datasets.layouts.assembling import GOOD, Found, as_test_image, assemble, counted
from bench.datasets.scenario import Scenario, TestImage
from bench.datasets.tables import PARQUET_SUFFIXES, Row, read_table
from bench.errors import DataError

COLUMNS = ("path", "split", "label", "mask", "defect", "scenario", "condition")
"""What a table may say of an image; the first three are needed."""

_NEEDED = COLUMNS[:3]
_SUFFIXES = (".csv", *PARQUET_SUFFIXES)
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_ANOMALOUS = {
    **dict.fromkeys(("normal", "good", "ok", "0", "false"), False),
    **dict.fromkeys(("anomalous", "anomaly", "bad", "1", "true"), True),
}


class Listed:
    """The layout."""

    title = "images listed in a table"
    name = "listed"

    def scenarios(self, collection: Path) -> list[str]:
        """The scenarios that tables in a collection's folder list; empty where there are no tables.

        Raises:
            DataError: The collection's folder cannot be listed, or its table is broken.
        """
        whole = table_in(collection, "scenarios")
        names = {_scenario(row, collection) for row in read_table(whole, _NEEDED).rows} if whole else set()
        return sorted(names | {folder.name for folder in _folders(collection) if table_in(folder, "scenario")})

    def read(self, collection: Path, scenario: str, cache: Cache) -> Scenario:
        """List the images of one scenario.

        Raises:
            DataError: A table is broken, or there are two of them.
        """
        own, whole = table_in(collection / scenario, "scenario"), table_in(collection, "scenarios")
        rows = read_table(whole, _NEEDED).rows if whole else ()
        listed = [row for row in rows if _scenario(row, collection) == scenario]
        if own is not None and listed:
            raise DataError(f"both {own} and {whole} list {scenario}: keep one")
        if own is not None:
            return _read(read_table(own, _NEEDED).rows, (), own, collection, scenario, cache)
        if whole is None:
            raise DataError(f"{collection} has neither scenarios.csv nor {scenario}/scenario.csv")
        others = [row for row in rows if _scenario(row, collection) != scenario]
        return _read(listed, others, whole, collection, scenario, cache)


def _read(
    rows: Sequence[Row], others: Sequence[Row], table: Path, collection: Path, scenario: str, cache: Cache
) -> Scenario:
    """Make a scenario of the rows of a table that are its own."""
    folder = table.parent
    split = {part: [row for row in rows if _split(row) == part] for part in ("train", "validation", "test")}
    fitted = [row for part in ("train", "validation") for row in split[part]]
    left_out = [row for row in fitted if _anomalous(row)]
    used = Found(
        folder=folder,
        train=tuple(_file(row, "path", folder) for row in split["train"] if not _anomalous(row)),
        validation=tuple(_file(row, "path", folder) for row in split["validation"] if not _anomalous(row)),
        test=tuple(_test_images(split["test"], folder)),
        set_aside=(table, *_files([*left_out, *others], "path", folder), *_files([*rows, *others], "mask", folder)),
        notes=counted(len(left_out), "training image", "with a defect left out: only normal ones train"),
    )
    return assemble(used, collection, scenario, __name__, cache)


def _test_images(rows: Sequence[Row], folder: Path) -> Iterator[TestImage]:
    for row, name in zip(rows, _names(rows), strict=True):
        mask = _file(row, "mask", folder) if row.text("mask") else None
        image = _file(row, "path", folder)
        yield as_test_image(image, _defect(row), mask, stem=name, condition=row.text("condition"))


def _files(rows: Sequence[Row], column: str, folder: Path) -> Iterator[Path]:
    return (_file(row, column, folder) for row in rows if row.text(column))


def table_in(folder: Path, name: str) -> Path | None:
    """The table of this name in a folder; ``None`` if there is none.

    Raises:
        DataError: There are several.
    """
    found = [path for suffix in _SUFFIXES if is_file(path := folder / f"{name}{suffix}")]
    if len(found) > 1:
        raise DataError(f"both {found[0]} and {found[1]} list images: keep one")
    return found[0] if found else None


def _folders(collection: Path) -> list[Path]:
    return [folder for folder in entries(collection) if is_folder(folder)]


def _scenario(row: Row, collection: Path) -> str:
    name = row.text("scenario") or collection.name
    if name in (".", "..") or "/" in name:
        raise row.error("scenario", f"{name!r} is no name of a scenario")
    return name


def _split(row: Row) -> str:
    text = row.text("split").lower()
    if text not in _SPLITS:
        raise row.error("split", f"{text!r} is none of train, validation, test")
    return _SPLITS[text]


def _anomalous(row: Row) -> bool:
    text = row.text("label").lower()
    if text not in _ANOMALOUS:
        raise row.error("label", f"{text!r} is neither normal (good, ok, 0) nor anomalous (anomaly, bad, 1)")
    return _ANOMALOUS[text]


def _defect(row: Row) -> str | None:
    if not _anomalous(row):
        return None
    defect = row.text("defect") or "bad"
    if defect == GOOD or "/" in defect:
        raise row.error("defect", f"{defect!r} is no kind of defect")
    return defect


def _file(row: Row, column: str, folder: Path) -> Path:
    text = row.text(column)
    if not text:
        raise row.error(column, "the file's name is missing")
    return folder / text.replace("\\", "/")


def _names(rows: Sequence[Row]) -> list[str]:
    """What each test image is called within its defect."""
    paths = [PurePosixPath(row.text("path").replace("\\", "/")) for row in rows]
    stems = Counter((_defect(row), path.stem) for row, path in zip(rows, paths, strict=True))
    return [
        path.stem if stems[_defect(row), path.stem] == 1 else "_".join(path.with_suffix("").parts).strip("/_")
        for row, path in zip(rows, paths, strict=True)
    ]


LAYOUT = Listed()
