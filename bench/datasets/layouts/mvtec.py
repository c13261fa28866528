"""The folder layout of MVTec AD, MVTec LOCO and every data set made to look like them.

::

    <collection>/<scenario>/train/good/*
                            validation/good/*                             (MVTec LOCO)
                            test/good/*   test/<defect>/*
                            ground_truth/<defect>/<stem>_mask.png         (or <stem>.png, or another image format)
                            ground_truth/<defect>/<stem>/000.png …        (MVTec LOCO)
                            defects_config.json                           (MVTec LOCO)
"""

from pathlib import Path

from bench.datasets.cache import Cache
from bench.datasets.catalogue import completeness, counted_as, known_by_folder
from bench.datasets.scenario import Scenario, TestImage
from bench.errors import DataError
from results.record import Collection

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})

DEFECTS_CONFIG = "defects_config.json"
"""LOCO form: which pixel value of a mask means which defect, and the defect's saturation threshold."""

_GOOD = "good"


def scenario_folders(collection: Path) -> list[Path]:
    """The scenarios in a collection's folder, by name; empty when it is no collection.

    A collection has a scenario with ``train/good`` and ``test``. Its other folders count as scenarios, if broken
    ones, when they have ``train`` or ``test``, bear the name of a published scenario, or are empty: leaving them out
    silently would turn a failed download into a smaller average.
    """
    folders = [folder for folder in _entries(collection) if folder.is_dir()]
    if not any((folder / "train" / _GOOD).is_dir() and (folder / "test").is_dir() for folder in folders):
        return []
    known = known_by_folder(collection)
    published = known.images if known else {}
    return [
        folder
        for folder in folders
        if (folder / "train").is_dir() or (folder / "test").is_dir() or folder.name in published or not _entries(folder)
    ]


def read_scenario(folder: Path, collection: Collection, cache: Cache) -> Scenario:
    """List the images of one scenario in this layout, without opening any.

    What is missing is left out; :meth:`Scenario.check` tells whether the rest will do.

    Raises:
        DataError: A folder may not be listed.
    """
    saturation = folder / DEFECTS_CONFIG if (folder / DEFECTS_CONFIG).is_file() else None
    test = tuple(
        image
        for defect in _entries(folder / "test")
        if defect.is_dir()
        for image in _test_images(defect, folder / "ground_truth" / defect.name, saturation)
    )
    train = _images(folder / "train" / _GOOD)
    return Scenario(
        collection=counted_as(collection, folder.name),
        name=folder.name,
        train=train,
        validation=_images(folder / "validation" / _GOOD),
        test=test,
        saturation=saturation,
        note=completeness(collection.name, folder.name, train, test),
        layout=__name__,
        folder=folder,
        cache=cache,
    )


def _test_images(folder: Path, truth: Path, saturation: Path | None) -> list[TestImage]:
    anomalous = folder.name != _GOOD
    masks = _masks_by_stem(truth) if anomalous else {}
    return [
        TestImage(
            name=f"test/{folder.name}/{path.stem}",
            path=path,
            defect=folder.name,
            anomalous=anomalous,
            masks=masks.get(path.stem, ()),
            saturation=saturation,
        )
        for path in _images(folder)
    ]


def _masks_by_stem(truth: Path) -> dict[str, tuple[Path, ...]]:
    masks: dict[str, tuple[Path, ...]] = {}
    for entry in _entries(truth):
        files = _images(entry) if entry.is_dir() else (entry,) if _is_image(entry) else ()
        if files:
            stem = entry.name if entry.is_dir() else entry.stem.removesuffix("_mask")
            masks[stem] = masks.get(stem, ()) + files
    return masks


def _images(folder: Path) -> tuple[Path, ...]:
    return tuple(entry for entry in _entries(folder) if _is_image(entry))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without hidden files such as ``._000.png`` of unpacked archives."""
    if not folder.is_dir():
        return []
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from error
