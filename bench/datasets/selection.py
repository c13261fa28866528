"""From the names that a user gives to scenarios."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from bench.datasets.accounting import entries, is_image
from bench.datasets.cache import Cache
from bench.datasets.catalogue import collection_of, counted_as, known_by_folder, known_by_layout, known_collection
from bench.datasets.demo import DEMO, DEMO_SCENARIOS, demo_folder
from bench.datasets.layouts import LAYOUTS
from bench.datasets.layouts.layout import Layout
from bench.datasets.scenario import MaskRule, Scenario, composed
from bench.errors import DataError, UsageError
from results.record import Collection

PHOTOGRAPH_FOLDERS = ("imagenet", "photographs")
"""Folders under the data root that hold images for a pretraining penalty, the first one there taken."""

_DEPTH = 4
"""How many folders deep images are looked for, to tell whether a folder that no layout reads looks like data."""


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
        return tuple(dict.fromkeys((self.collection.name, composed(self.folder.name), *others)))

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
        except DataError as error:
            return Scenario(
                collection=counted_as(self.collection, scenario),
                name=scenario,
                train=(),
                validation=(),
                test=(),
                problems=(str(error),),
                folder=self.folder / scenario,
                cache=cache,
            )

    def named(self, name: str) -> list[str]:
        """The scenarios that ``name`` means: ``COLLECTION`` or ``COLLECTION/SCENARIO``, by any of its names."""
        matching = []
        for scenario in self.scenarios:
            counted = counted_as(self.collection, scenario).name
            collections = {self.collection.name, composed(self.folder.name), counted}
            if name in {counted, *collections, *(f"{collection}/{composed(scenario)}" for collection in collections)}:
                matching.append(scenario)
        return matching


@dataclass(frozen=True)
class PassedOver:
    """A folder under the data root that is not read.

    Attributes:
        folder: The folder.
        why: Why not, as one phrase.
    """

    folder: Path
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
    """Find every collection under the data root, from names alone, and every folder that looks like one.

    Raises:
        DataError: The data root cannot be listed.
    """
    collections, passed_over = [], []
    for folder in entries(data_root) if data_root is not None else []:
        if not folder.is_dir():
            continue
        try:
            found = find_collection(folder)
        except DataError as error:
            passed_over.append(PassedOver(folder, str(error)))
            continue
        if found is not None:
            collections.append(found)
        elif why := _why_not(folder):
            passed_over.append(PassedOver(folder, why))
    return Inventory(tuple(collections), tuple(passed_over))


def find_collection(folder: Path) -> FoundCollection | None:
    """Recognise a collection by its folder's name and its layout; ``None`` if no layout finds a scenario in it.

    Raises:
        DataError: A folder cannot be listed, or a file that lists the scenarios is damaged.
    """
    known = known_by_folder(folder)
    layouts = sorted(LAYOUTS, key=lambda layout: known is None or layout.name != known.layout)
    for layout in layouts:
        scenarios = layout.scenarios(folder)
        if scenarios:
            by_layout = known or known_by_layout(layout.name)
            collection = by_layout.collection if by_layout else collection_of(folder)
            return FoundCollection(collection, folder, layout, tuple(scenarios))
    return None


def select_scenarios(
    selection: str, data_root: Path | None, cache: Cache, masks: MaskRule | None = None
) -> list[Scenario]:
    """Find the scenarios a user names, in the order named, each once.

    Only file names are read; :meth:`Scenario.check` says whether a scenario can be used.

    Args:
        selection: Comma separated: ``all`` (every collection under the data root), ``demo`` (made on first use), a
            collection, or ``collection/scenario``, by any name of the collection. A name may hold commas itself.
        data_root: The folder that holds the collections, one folder each.
        cache: Where the demo is made and file digests are remembered.
        masks: Which values of a mask mark a defect; as the catalogue says, else decided from them, when ``None``.

    Raises:
        UsageError: A name is unknown or means two folders, or nothing is found; the message says what is there.
        DataError: The data root cannot be listed.
    """
    inventory = take_inventory(data_root)
    names = split_names(selection, inventory)
    if not names:
        raise UsageError("no data sets named: pass all, demo, COLLECTION or COLLECTION/SCENARIO, comma separated")
    chosen: dict[str, Scenario] = {}
    for name in names:
        for scenario in _resolve(name, inventory, data_root, cache):
            # in LOCO form a mask's values name saturation thresholds
            given = scenario if masks is None or scenario.saturated else replace(scenario, mask_rule=masks)
            chosen.setdefault(scenario.id, given)
    return list(chosen.values())


def passed_over(selection: str, data_root: Path | None) -> tuple[str, ...]:
    """What ``all`` leaves out though it looks like data, one sentence each; nothing if ``all`` is not selected."""
    inventory = take_inventory(data_root)
    if "all" not in split_names(selection, inventory):
        return ()
    return tuple(f"{over.folder} {over.why}" for over in inventory.passed_over)


def split_names(selection: str, inventory: Inventory) -> list[str]:
    """Split a selection at its commas, but for those that belong to the name of something that is there."""
    pieces = selection.split(",")
    names, start = [], 0
    while start < len(pieces):
        stop = next(
            (
                stop
                for stop in range(len(pieces), start + 1, -1)
                if any(found.named(_trimmed(pieces[start:stop])) for found in inventory.collections)
            ),
            start + 1,
        )
        names.append(_trimmed(pieces[start:stop]))
        start = stop
    return [name for name in names if name]


def _trimmed(pieces: list[str]) -> str:
    return composed(",".join(pieces).strip().strip("/"))


def _resolve(name: str, inventory: Inventory, data_root: Path | None, cache: Cache) -> Iterator[Scenario]:
    if name == "all":
        if not inventory.collections:
            raise UsageError(_nothing_found(inventory, data_root))
        _refuse_copies(inventory.collections)
        for found in inventory.collections:
            yield from (found.read(scenario, cache) for scenario in found.scenarios)
        return
    collection_name, _, scenario_name = name.partition("/")
    if collection_name == DEMO.name and scenario_name in ("", *DEMO_SCENARIOS):
        folder = demo_folder(cache)
        demo = next(layout for layout in LAYOUTS if layout.name == "mvtec")
        for scenario in DEMO_SCENARIOS:
            if scenario_name in ("", scenario):
                yield replace(demo.read(folder, scenario, cache), collection=DEMO)
        return
    matching = [(found, scenarios) for found in inventory.collections if (scenarios := found.named(name))]
    if matching:
        exact = [(found, scenarios) for found, scenarios in matching if composed(found.folder.name) == collection_name]
        matching = exact if len(exact) == 1 else matching
        _refuse_copies([found for found, _ in matching])
        for found, scenarios in matching:
            yield from (found.read(scenario, cache) for scenario in scenarios)
        return
    if scenario_name and data_root is not None and (data_root / name).is_dir():
        # Named outright, so it is taken for a scenario, and its check says what it lacks.
        folder = data_root / collection_name
        found_here = find_collection(folder)
        yield (found_here.layout if found_here else LAYOUTS[-1]).read(folder, scenario_name, cache)
        return
    raise UsageError(_unknown(name, inventory, data_root))


def _refuse_copies(found: tuple[FoundCollection, ...] | list[FoundCollection]) -> None:
    by_name: dict[str, FoundCollection] = {}
    for each in found:
        other = by_name.setdefault(each.collection.name, each)
        if other is not each:
            raise UsageError(
                f"both {other.folder} and {each.folder} hold {each.collection.title}: name one of them by its folder, "
                f"{other.folder.name} or {each.folder.name}, or keep one"
            )


def _unknown(name: str, inventory: Inventory, data_root: Path | None) -> str:
    collections = inventory.collections
    scenarios = [
        f"{counted_as(found.collection, scenario).name}/{scenario}"
        for found in collections
        for scenario in found.scenarios
    ]
    scenarios += [f"{DEMO.name}/{scenario}" for scenario in DEMO_SCENARIOS]
    names = ["all", DEMO.name, *(name for found in collections for name in found.names), *scenarios]
    same_scenario = [scenario for scenario in scenarios if scenario.partition("/")[2] == name]
    guesses = same_scenario or get_close_matches(name, names, n=3)
    meant = f"; did you mean {' or '.join(guesses)}?" if guesses else ""
    passed = next(
        (over for over in inventory.passed_over if composed(over.folder.name) == name.partition("/")[0]), None
    )
    if passed is not None:
        return f"data set {name!r} cannot be used: {passed.folder} {passed.why}"
    if not collections:
        return f"unknown data set {name!r}{meant}\n{_nothing_found(inventory, data_root)}"
    return (
        f"unknown data set {name!r}{meant}\nunder {data_root} there are: all, demo, "
        f"{', '.join(found.collection.name for found in collections)}\nbench datasets lists their scenarios"
    )


def _nothing_found(inventory: Inventory, data_root: Path | None) -> str:
    if data_root is None:
        problem = "no folder with data sets given"
    elif not data_root.is_dir():
        problem = f"the folder with data sets {data_root} does not exist"
    elif (data_root / "train").is_dir() or find_collection(data_root) is not None:
        above = data_root.absolute().parents[1 if (data_root / "train").is_dir() else 0]
        return f"{data_root} is itself a collection or a scenario: pass --data-root {above}"
    else:
        problem = f"no collection found under {data_root}"
    not_read = "".join(f"\nnot read: {over.folder} {over.why}" for over in inventory.passed_over)
    return (
        f"{problem}: expected <collection>/<scenario>/train/good and <collection>/<scenario>/test, such as "
        f"mvtec_ad/bottle/train/good\npoint --data-root or BENCH_DATA at such a folder, or try --datasets demo, which "
        f"needs no data{not_read}"
    )


def _why_not(folder: Path) -> str | None:
    """Why a folder that no layout reads is worth a word; ``None`` if it holds no images."""
    if folder.name in PHOTOGRAPH_FOLDERS:
        return None
    known = known_by_folder(folder)
    if known is not None:
        return (
            f"is called like {known.title}, and holds no scenario in its layout: bench data get {known.name} says how"
        )
    subfolders = sum(entry.is_dir() for entry in _listed(folder))
    if subfolders and _holds_images(folder, _DEPTH):
        return "holds images in folders that no layout reads: bench data list names the layouts"
    return None


def _holds_images(folder: Path, depth: int) -> bool:
    inside = _listed(folder)
    return any(map(is_image, inside)) or (
        depth > 0 and any(_holds_images(entry, depth - 1) for entry in inside if entry.is_dir())
    )


def _listed(folder: Path) -> list[Path]:
    try:
        return entries(folder)
    except DataError:
        return []
