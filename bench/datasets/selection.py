"""From the names that a user gives to scenarios."""

from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from bench.datasets.accounting import is_folder
from bench.datasets.cache import Cache
from bench.datasets.catalogue import counted_as
from bench.datasets.demo import DEMO, DEMO_SCENARIOS, demo_folder
from bench.datasets.inventory import FoundCollection, Inventory, as_typed, find_collection, take_inventory
from bench.datasets.layouts import LAYOUTS
from bench.datasets.scenario import MaskRule, Scenario, composed
from bench.errors import UsageError


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
            other = chosen.setdefault(scenario.id, given)
            if other is not given and other.folder.resolve() != given.folder.resolve():
                raise UsageError(
                    f"both {other.folder} and {given.folder} are {given.id}: select one of them, by its folder's name, "
                    f"or rename a folder"
                )
    return list(chosen.values())


def passed_over(selection: str, data_root: Path | None) -> tuple[str, ...]:
    """What ``all`` leaves out though it looks like data, one sentence each; nothing if ``all`` is not selected."""
    inventory = take_inventory(data_root)
    if "all" not in split_names(selection, inventory):
        return ()
    return tuple(f"{over.path} {over.why}" for over in inventory.passed_over)


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
    return as_typed(",".join(pieces).strip().strip("/"))


def _resolve(name: str, inventory: Inventory, data_root: Path | None, cache: Cache) -> Iterator[Scenario]:
    if name == "all":
        if not inventory.collections:
            raise UsageError(_nothing_found(inventory, data_root))
        _refuse_copies(inventory.collections)
        for found in inventory.collections:
            yield from (found.read(scenario, cache) for scenario in found.scenarios)
        return
    collection_name, _, scenario_name = name.partition("/")
    matching = [(found, scenarios) for found in inventory.collections if (scenarios := found.named(name))]
    if collection_name == DEMO.name and scenario_name in ("", *DEMO_SCENARIOS):
        if matching:
            raise UsageError(
                f"{name} is what bench makes itself, and {matching[0][0].folder} is called so too: rename the folder"
            )
        folder = demo_folder(cache)
        demo = next(layout for layout in LAYOUTS if layout.name == "mvtec")
        for scenario in DEMO_SCENARIOS:
            if scenario_name in ("", scenario):
                yield replace(demo.read(folder, scenario, cache), collection=DEMO)
        return
    if matching:
        exact = [(found, scenarios) for found, scenarios in matching if as_typed(found.folder.name) == collection_name]
        matching = exact if len(exact) == 1 else matching
        _refuse_copies([found for found, _ in matching])
        for found, scenarios in matching:
            yield from (found.read(scenario, cache) for scenario in scenarios)
        return
    if scenario_name and data_root is not None and is_folder(data_root / name):
        # Named outright, so it is taken for a scenario, and its check says what it lacks.
        folder = data_root / collection_name
        found_here = find_collection(folder)
        yield (found_here.layout if found_here else LAYOUTS[-1]).read(folder, scenario_name, cache)
        return
    raise UsageError(_unknown(name, inventory, data_root))


def _refuse_copies(found: tuple[FoundCollection, ...] | list[FoundCollection]) -> None:
    by_name: dict[str, FoundCollection] = {}
    for each in found:
        other = by_name.setdefault(as_typed(each.collection.name), each)
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
    root = Path() if data_root is None else data_root
    meant_paths = {composed(str(root / each)) for each in (name, name.partition("/")[0])}
    passed = next((over for over in inventory.passed_over if composed(str(over.path)) in meant_paths), None)
    if passed is not None:
        return f"data set {name!r} cannot be used: {passed.path} {passed.why}"
    if not collections:
        return f"unknown data set {name!r}{meant}\n{_nothing_found(inventory, data_root)}"
    return (
        f"unknown data set {name!r}{meant}\nunder {data_root} there are: all, demo, "
        f"{', '.join(found.collection.name for found in collections)}\nbench datasets lists their scenarios"
    )


def _nothing_found(inventory: Inventory, data_root: Path | None) -> str:
    if data_root is None:
        problem = "no folder with data sets given"
    elif not is_folder(data_root):
        problem = f"the folder with data sets {data_root} does not exist"
    elif is_folder(data_root / "train") or find_collection(data_root) is not None:
        above = data_root.absolute().parents[1 if is_folder(data_root / "train") else 0]
        return f"{data_root} is itself a collection or a scenario: pass --data-root {above}"
    else:
        problem = f"no collection found under {data_root}"
    not_read = "".join(f"\nnot read: {over.path} {over.why}" for over in inventory.passed_over)
    return (
        f"{problem}: expected <collection>/<scenario>/train/good and <collection>/<scenario>/test, such as "
        f"mvtec_ad/bottle/train/good\npoint --data-root or BENCH_DATA at such a folder, or try --datasets demo, which "
        f"needs no data{not_read}"
    )
