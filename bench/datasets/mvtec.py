"""The folder layout of MVTec AD, MVTec LOCO and every data set made to look like them.

::

    <collection>/<scenario>/train/good/*
                            validation/good/*                             (MVTec LOCO)
                            test/good/*   test/<defect>/*
                            ground_truth/<defect>/<stem>_mask.png         (or <stem>.png, or another image format)
                            ground_truth/<defect>/<stem>/000.png …        (MVTec LOCO)
                            defects_config.json                           (MVTec LOCO)
"""

from dataclasses import dataclass, field
from pathlib import Path

from bench.datasets.cache import Cache
from bench.datasets.scenario import DEFECTS_CONFIG, Scenario, TestImage
from bench.errors import DataError
from results.record import Collection

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})

_GOOD = "good"


@dataclass(frozen=True)
class KnownCollection:
    """A published collection.

    Attributes:
        collection: Its name and title.
        folders: What its folder is commonly called, in lower case, without anything but letters and digits.
        images: Per scenario the number of train, normal test and anomalous test images of a complete copy.
    """

    collection: Collection
    folders: frozenset[str]
    images: dict[str, tuple[int, int, int]] = field(hash=False)


def _known(name: str, title: str, folders: set[str], images: dict[str, tuple[int, int, int]]) -> KnownCollection:
    return KnownCollection(Collection(name=name, title=title, scenarios=len(images)), frozenset(folders), images)


KNOWN_COLLECTIONS = (
    _known(
        "mvtec_ad",
        "MVTec AD",
        {"mvtecad", "mvtec", "mvtecanomalydetection"},
        {  # Bergmann et al., IJCV 2021, Table 1
            "bottle": (209, 20, 63),
            "cable": (224, 58, 92),
            "capsule": (219, 23, 109),
            "carpet": (280, 28, 89),
            "grid": (264, 21, 57),
            "hazelnut": (391, 40, 70),
            "leather": (245, 32, 92),
            "metal_nut": (220, 22, 93),
            "pill": (267, 26, 141),
            "screw": (320, 41, 119),
            "tile": (230, 33, 84),
            "toothbrush": (60, 12, 30),
            "transistor": (213, 60, 40),
            "wood": (247, 19, 60),
            "zipper": (240, 32, 119),
        },
    ),
    _known(
        "mvtec_loco",
        "MVTec LOCO",
        {"mvtecloco", "mvteclocoad", "mvteclocoanomalydetection"},
        {  # Bergmann et al., IJCV 2022, Table 2; the validation set not counted
            "breakfast_box": (351, 102, 173),
            "juice_bottle": (335, 94, 236),
            "pushpins": (372, 138, 172),
            "screw_bag": (360, 122, 219),
            "splicing_connectors": (354, 119, 193),
        },
    ),
    _known(
        "visa",
        "VisA",
        {"visa", "visapytorch"},
        {  # Zou et al., ECCV 2022, one-class split
            "candle": (900, 100, 100),
            "capsules": (542, 60, 100),
            "cashew": (450, 50, 100),
            "chewinggum": (453, 50, 100),
            "fryum": (450, 50, 100),
            "macaroni1": (900, 100, 100),
            "macaroni2": (900, 100, 100),
            "pcb1": (904, 100, 100),
            "pcb2": (901, 100, 100),
            "pcb3": (905, 101, 100),
            "pcb4": (904, 101, 100),
            "pipe_fryum": (450, 50, 100),
        },
    ),
)


def known_collection(name: str) -> KnownCollection | None:
    """The published collection of this name."""
    return next((known for known in KNOWN_COLLECTIONS if known.collection.name == name), None)


def collection_of(folder: Path) -> Collection:
    """Which collection a folder holds, by its name; an unknown one is titled by its folder."""
    known = _known_by_folder(folder)
    return known.collection if known else Collection(name=folder.name, title=folder.name)


def _of_its_own(collection: Collection, scenario: str) -> Collection:
    """The collection that a scenario counts for: one that nobody published is kept out of the published ones' mean."""
    known = known_collection(collection.name)
    if known is None or scenario in known.images:
        return collection
    return Collection(name=f"{collection.name}_other", title=f"{collection.title}, other scenarios")


def scenario_folders(collection: Path) -> list[Path]:
    """The scenarios in a collection's folder, by name; empty when it is no collection.

    A collection has a scenario with ``train/good`` and ``test``. Its other folders count as scenarios, if broken
    ones, when they have ``train`` or ``test``, bear the name of a published scenario, or are empty: leaving them out
    silently would turn a failed download into a smaller average.
    """
    folders = [folder for folder in _entries(collection) if folder.is_dir()]
    if not any((folder / "train" / _GOOD).is_dir() and (folder / "test").is_dir() for folder in folders):
        return []
    known = _known_by_folder(collection)
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
    saturated = (folder / DEFECTS_CONFIG).is_file()
    test = tuple(
        image
        for defect in _entries(folder / "test")
        if defect.is_dir()
        for image in _test_images(defect, folder / "ground_truth" / defect.name, saturated)
    )
    train = _images(folder / "train" / _GOOD)
    return Scenario(
        collection=_of_its_own(collection, folder.name),
        name=folder.name,
        train=train,
        validation=_images(folder / "validation" / _GOOD),
        test=test,
        saturated=saturated,
        note=_completeness(collection.name, folder.name, train, test),
        folder=folder,
        cache=cache,
    )


def _test_images(folder: Path, truth: Path, saturated: bool) -> list[TestImage]:
    anomalous = folder.name != _GOOD
    masks = _masks_by_stem(truth) if anomalous else {}
    return [
        TestImage(
            name=f"test/{folder.name}/{path.stem}",
            path=path,
            defect=folder.name,
            anomalous=anomalous,
            masks=masks.get(path.stem, ()),
            saturated=saturated,
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


def _completeness(collection: str, scenario: str, train: tuple[Path, ...], test: tuple[TestImage, ...]) -> str | None:
    known = known_collection(collection)
    if known is None:
        return None
    if scenario not in known.images:
        return f"not a scenario of {known.collection.title}"
    anomalous = sum(image.anomalous for image in test)
    found = (len(train), len(test) - anomalous, anomalous)
    published = known.images[scenario]
    if found == published:
        return None
    parts = zip(found, published, ("train", "normal test", "anomalous test"), strict=True)
    counts = ", ".join(f"{count} of {of} {what}" for count, of, what in parts if count != of)
    larger = any(count > of for count, of in zip(found, published, strict=True))
    return f"{'not the published images' if larger else 'incomplete'}: {counts}"


def _known_by_folder(folder: Path) -> KnownCollection | None:
    letters = "".join(letter for letter in folder.name.lower() if letter.isalnum())
    return next((known for known in KNOWN_COLLECTIONS if letters in known.folders), None)


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
