"""What lies under the data root: the collections that can be read, and what looks like data and cannot."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.datasets.accounting import entries, first_image, is_folder, is_image, unreachable
from bench.datasets.cache import Cache
from bench.datasets.catalogue import collection_of, counted_as, known_by_folder, known_by_layout, known_collection
from bench.datasets.layouts import LAYOUTS
from bench.datasets.layouts.folders import FolderLayout
from bench.datasets.layouts.layout import Layout
from bench.datasets.scenario import Scenario, composed
from bench.errors import DataError
from results.record import Collection

PHOTOGRAPH_FOLDERS = ("imagenet", "photographs")
"""Folders under the data root that hold images for a pretraining penalty, the first one there taken."""


@dataclass(frozen=True)
class FoundCollection:
    """A collection's folder under the data root.

    Attributes:
        collection: What it holds.
        folder: The folder.
        layout: What reads it.
        scenarios: The scenarios in it, by name; those that nobody published among them.
    """

    collection: Collection
    folder: Path
    layout: Layout
    scenarios: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that finds it: its own, its folder's, and that of its scenarios which nobody published."""
        others = (counted_as(self.collection, scenario).name for scenario in self.scenarios)
        return tuple(dict.fromkeys((self.collection.name, as_typed(self.folder.name), *others)))

    @property
    def coverage(self) -> str:
        """How much of a published collection is there, such as "1 of 15 scenarios"."""
        known = known_collection(self.collection.name)
        count = len(self.scenarios)
        if known is None:
            return "1 scenario" if count == 1 else f"{count} scenarios"
        others = sum(scenario not in known.images for scenario in self.scenarios)
        text = f"{count - others} of {len(known.images)} scenarios"
        return f"{text} and {others} other{'s' if others > 1 else ''}" if others else text

    def read(self, scenario: str, cache: Cache) -> Scenario:
        """List a scenario's images; one whose lists are broken says so when it is checked, and costs no other."""
        try:
            return self.layout.read(self.folder, scenario, cache)
        except (DataError, OSError) as error:
            return Scenario(
                collection=counted_as(self.collection, scenario),
                name=composed(scenario),
                train=(),
                validation=(),
                test=(),
                problems=(_why(error),),
                folder=self.folder / scenario,
                cache=cache,
            )

    def named(self, name: str) -> list[str]:
        """The scenarios that ``name`` means: ``COLLECTION`` or ``COLLECTION/SCENARIO``, by any of its names."""
        matching = []
        for scenario in self.scenarios:
            counted = counted_as(self.collection, scenario).name
            collections = {as_typed(each) for each in (self.collection.name, self.folder.name, counted)}
            if name in {*collections, *(f"{collection}/{as_typed(scenario)}" for collection in collections)}:
                matching.append(scenario)
        return matching


@dataclass(frozen=True)
class PassedOver:
    """A folder or file under the data root that is not read.

    Attributes:
        path: Of the folder or file.
        why: Why not, as a phrase to follow its name.
    """

    path: Path
    why: str


@dataclass(frozen=True)
class Inventory:
    """What lies under the data root.

    Attributes:
        collections: What can be read, by folder.
        passed_over: What cannot, though it looks like data.
    """

    collections: tuple[FoundCollection, ...] = ()
    passed_over: tuple[PassedOver, ...] = field(default=())


def take_inventory(data_root: Path | None) -> Inventory:
    """Find every collection under the data root, from names alone, and all that looks like data and is not read.

    Raises:
        DataError: The data root cannot be listed.
    """
    collections: list[FoundCollection] = []
    passed_over: list[PassedOver] = []
    for folder in entries(data_root) if data_root is not None else []:
        if not is_folder(folder):
            passed_over += _lost(folder)
            continue
        try:
            found = find_collection(folder)
        except DataError as error:
            passed_over.append(PassedOver(folder, f"cannot be read: {error}"))
            continue
        if found is None:
            passed_over += _left_out(folder)
        else:
            collections.append(found)
            passed_over += _left_in(found)
    return Inventory(tuple(collections), tuple(passed_over))


def find_collection(folder: Path) -> FoundCollection | None:
    """Recognise a collection by its folder's name and its layout; ``None`` if no layout finds a scenario in it.

    Raises:
        DataError: A folder cannot be listed, or a file that lists the scenarios is damaged.
    """
    known = known_by_folder(folder)
    layouts = sorted(LAYOUTS, key=lambda layout: known is None or layout.name != known.layout)
    for layout in layouts:
        try:
            scenarios = layout.scenarios(folder)
        except OSError as error:
            raise DataError(_why(error)) from error
        if scenarios:
            by_layout = known or known_by_layout(layout.name)
            collection = by_layout.collection if by_layout else collection_of(folder)
            return FoundCollection(collection, folder, layout, tuple(scenarios))
    return None


def as_typed(name: str) -> str:
    """A name, or several with ``/`` between them, as a selection holds it: composed, without blanks at its ends."""
    return "/".join(part.strip() for part in composed(name).split("/"))


def _why(error: DataError | OSError) -> str:
    return f"cannot look into {error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


def _left_out(folder: Path) -> Iterator[PassedOver]:
    """Why a folder that no layout reads is passed over; nothing if it does not look like data."""
    if folder.name in PHOTOGRAPH_FOLDERS:
        return
    known = known_by_folder(folder)
    if known is not None:
        yield PassedOver(
            folder,
            f"is called like {known.title}, and holds no scenario in its layout: bench data get {known.name} says how",
        )
    elif any(map(is_folder, entries(folder))) and first_image(folder):
        if is_folder(folder / "train") and is_folder(folder / "test"):
            why = f"holds train and test itself: move it into the folder of a collection, such as own/{folder.name}"
        else:
            why = "holds images in folders that no layout reads: bench data list names the layouts"
        yield PassedOver(folder, why)


def _left_in(found: FoundCollection) -> Iterator[PassedOver]:
    """What lies beside the scenarios of a collection and looks like data, where each scenario is a folder in it."""
    beside = _beside(found)
    images = [entry for entry in beside if is_image(entry)]
    if images:
        many = f", one of {len(images)} images there" if len(images) > 1 else ""
        yield PassedOver(images[0], f"lies beside the scenarios{many}")
    for entry in beside:
        if is_folder(entry):
            if first_image(entry):
                yield PassedOver(entry, f"holds images, and is no scenario in the layout of {found.layout.title}")
        elif not is_image(entry):
            yield from _lost(entry)


def _beside(found: FoundCollection) -> list[Path]:
    """What lies in a collection's folder besides its scenarios; nothing where they are not folders in it."""
    within = found.layout.within if isinstance(found.layout, FolderLayout) else ""
    place = found.folder / within
    if found.layout.name == "listed" or not all(is_folder(place / scenario) for scenario in found.scenarios):
        return []  # a table or other files say what is read, wherever it lies
    others = entries(found.folder) if within else []
    return [
        *(entry for entry in others if entry != place),
        *(entry for entry in entries(place) if entry.name not in found.scenarios),
    ]


def _lost(entry: Path) -> Iterator[PassedOver]:
    """What leads nowhere: it may have been data."""
    why = unreachable(entry)
    if why is not None:
        yield PassedOver(entry, why)
