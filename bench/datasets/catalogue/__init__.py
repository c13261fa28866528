"""The published collections: what they are called, what a complete copy holds, who owns it and how it is read.

Each is a TOML file in this package. What its owners do not say, and nobody has counted, is left out.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from bench.datasets.catalogue.known import Archive, KnownCollection, PublishedImages, ValidationRule
from bench.datasets.catalogue.reading import read_catalogue
from bench.datasets.scenario import TestImage, composed
from results.record import Collection

_OTHER = "_other"
"""Ends the name of the collection that scenarios in a published one's folder count for, which nobody published."""

__all__ = [
    "Archive",
    "KnownCollection",
    "PublishedImages",
    "ValidationRule",
    "collection_of",
    "completeness",
    "counted_as",
    "known_by_folder",
    "known_by_layout",
    "known_by_scenario",
    "known_collection",
    "known_collections",
    "published_name",
]


@cache
def known_collections() -> tuple[KnownCollection, ...]:
    """Every published collection of the catalogue, by title; read once, when first asked for."""
    return read_catalogue(Path(__file__).parent)


def known_collection(name: str) -> KnownCollection | None:
    """The published collection of this name."""
    return next((known for known in known_collections() if known.name == name), None)


def known_by_folder(folder: Path) -> KnownCollection | None:
    """The published collection that a folder is commonly called by; VisA's converter makes one per protocol in it."""
    if folder.name == "1cls":
        folder = folder.parent
    letters = "".join(letter for letter in folder.name.lower() if letter.isalnum())
    return next((known for known in known_collections() if letters in known.folders), None)


def known_by_layout(layout: str) -> KnownCollection | None:
    """The one published collection in this layout; ``None`` where none or several are."""
    having = [known for known in known_collections() if known.layout == layout]
    return having[0] if len(having) == 1 else None


def known_by_scenario(scenario: str) -> KnownCollection | None:
    """The one published collection that has a scenario of this name; ``None`` where none or several have."""
    having = [known for known in known_collections() if scenario in known.images]
    return having[0] if len(having) == 1 else None


def collection_of(folder: Path) -> Collection:
    """Which collection a folder holds, by its name; an unknown one is titled by its folder."""
    known = known_by_folder(folder)
    name = composed(folder.name)
    return known.collection if known else Collection(name=name, title=name)


def counted_as(collection: Collection, scenario: str) -> Collection:
    """The collection that a scenario counts for: one that nobody published is kept out of the published ones' mean."""
    known = known_collection(collection.name)
    if known is None or scenario in known.images:
        return collection
    return Collection(name=f"{collection.name}{_OTHER}", title=f"{collection.title}, other scenarios")


def published_name(collection: str) -> str:
    """What the collection is called in whose folder the scenarios of ``collection`` lie, published ones or others."""
    base = collection.removesuffix(_OTHER)
    return base if known_collection(base) is not None else collection


def completeness(
    collection: str,
    scenario: str,
    train: tuple[Path, ...],
    test: tuple[TestImage, ...],
    validation: tuple[Path, ...] = (),
) -> str | None:
    """What a table must say of a scenario that is not the published one; ``None`` if nothing."""
    known = known_collection(collection)
    if known is None:
        return None
    published = known.images.get(scenario)
    if published is None:
        return f"not a scenario of {known.title}"
    anomalous = sum(image.anomalous for image in test)
    differing = [
        (count, of, what)
        for count, of, what in (
            (len(train), published.train, "train"),
            (len(validation), published.validation, "validation"),
            (len(test) - anomalous, published.test_normal, "normal test"),
            (anomalous, published.test_anomalous, "anomalous test"),
        )
        if of is not None and count != of
    ]
    if not differing:
        return None
    larger = any(count > of for count, of, _ in differing)
    return f"{'not the published images' if larger else 'incomplete'}: {_listed(differing)}"


def _listed(differing: Iterable[tuple[int, int, str]]) -> str:
    return ", ".join(f"{count} of {of} {what}" for count, of, what in differing)
