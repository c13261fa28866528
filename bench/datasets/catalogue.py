"""The published collections: what they are called and how many images a complete copy has."""

from dataclasses import dataclass, field
from pathlib import Path

from bench.datasets.scenario import TestImage
from results.record import Collection


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
    known = known_by_folder(folder)
    return known.collection if known else Collection(name=folder.name, title=folder.name)


def counted_as(collection: Collection, scenario: str) -> Collection:
    """The collection that a scenario counts for: one that nobody published is kept out of the published ones' mean."""
    known = known_collection(collection.name)
    if known is None or scenario in known.images:
        return collection
    return Collection(name=f"{collection.name}_other", title=f"{collection.title}, other scenarios")


def completeness(collection: str, scenario: str, train: tuple[Path, ...], test: tuple[TestImage, ...]) -> str | None:
    """What a table must say of a scenario that is not the published one; ``None`` if nothing."""
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


def known_by_folder(folder: Path) -> KnownCollection | None:
    """The published collection that a folder is commonly called by."""
    letters = "".join(letter for letter in folder.name.lower() if letter.isalnum())
    return next((known for known in KNOWN_COLLECTIONS if letters in known.folders), None)
