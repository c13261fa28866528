"""From the names that a user gives to scenarios."""

from difflib import get_close_matches
from pathlib import Path

from bench.datasets.cache import Cache
from bench.datasets.catalogue import collection_of, known_collection
from bench.datasets.demo import DEMO, DEMO_SCENARIOS, demo_folder
from bench.datasets.layouts.mvtec import read_scenario, scenario_folders
from bench.datasets.scenario import Scenario
from bench.errors import UsageError
from results.record import Collection


def select_scenarios(selection: str, data_root: Path | None, cache: Cache) -> list[Scenario]:
    """Find the scenarios a user names, in the order named, each once.

    Only file names are read; :meth:`Scenario.check` says whether a scenario can be used.

    Args:
        selection: Comma separated: ``all`` (every collection under the data root), ``demo`` (made on first use), a
            collection, or ``collection/scenario``.
        data_root: The folder that holds the collections, one folder each.
        cache: Where the demo is made and file digests are remembered.

    Raises:
        UsageError: A name is unknown, or nothing is found; the message says what is there and what to do.
    """
    found = _find(data_root)
    names = [name.strip().strip("/") for name in selection.split(",") if name.strip()]
    if not names:
        raise UsageError("no data sets named: pass all, demo, COLLECTION or COLLECTION/SCENARIO, comma separated")
    chosen: dict[str, Scenario] = {}
    for name in names:
        for collection, folder in _resolve(name, found, data_root, cache):
            scenario = read_scenario(folder, collection, cache)
            chosen.setdefault(scenario.id, scenario)
    return list(chosen.values())


def list_collections(data_root: Path | None, cache: Cache) -> list[tuple[Collection, list[str], str]]:
    """Name every collection under the data root.

    Returns:
        Per collection: what it is, the names of the scenarios found, and their coverage such as "1 of 15 scenarios".

    Raises:
        UsageError: Two folders hold the same collection.
    """
    return [
        (collection, [folder.name for folder in folders], _coverage(collection, folders))
        for collection, folders in _find(data_root).values()
    ]


_Found = dict[str, tuple[Collection, list[Path]]]


def _find(data_root: Path | None) -> _Found:
    found: _Found = {}
    if data_root is None or not data_root.is_dir():
        return found
    for folder in sorted(data_root.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        scenarios = scenario_folders(folder)
        if not scenarios:
            continue
        collection = collection_of(folder)
        if collection.name in found:
            raise UsageError(
                f"both {found[collection.name][1][0].parent} and {folder} hold {collection.title}: keep one, or point "
                f"--data-root at a folder with one of them"
            )
        found[collection.name] = (collection, scenarios)
    return found


def _resolve(name: str, found: _Found, data_root: Path | None, cache: Cache) -> list[tuple[Collection, Path]]:
    if name == "all":
        if not found:
            raise UsageError(_nothing_found(data_root))
        return [(collection, folder) for collection, folders in found.values() for folder in folders]
    collection_name, _, scenario_name = name.partition("/")
    if collection_name == DEMO.name and scenario_name in ("", *DEMO_SCENARIOS):
        folder = demo_folder(cache)
        return [(DEMO, folder / scenario) for scenario in DEMO_SCENARIOS if scenario_name in ("", scenario)]
    if collection_name in found:
        collection, folders = found[collection_name]
        matching = [(collection, folder) for folder in folders if scenario_name in ("", folder.name)]
        if matching:
            return matching
    if scenario_name and data_root is not None and (data_root / name).is_dir():
        # named outright, so it is taken for a scenario, and its check says what it lacks
        return [(collection_of(data_root / collection_name), data_root / name)]
    raise UsageError(_unknown(name, found, data_root))


def _unknown(name: str, found: _Found, data_root: Path | None) -> str:
    scenarios = [f"{collection}/{folder.name}" for collection, (_, folders) in found.items() for folder in folders]
    scenarios += [f"{DEMO.name}/{scenario}" for scenario in DEMO_SCENARIOS]
    names = ["all", DEMO.name, *found, *scenarios]
    same_scenario = [scenario for scenario in scenarios if scenario.partition("/")[2] == name]
    guesses = same_scenario or get_close_matches(name, names, n=3)
    meant = f"; did you mean {' or '.join(guesses)}?" if guesses else ""
    if not found:
        return f"unknown data set {name!r}{meant}\n{_nothing_found(data_root)}"
    return (
        f"unknown data set {name!r}{meant}\nunder {data_root} there are: all, demo, {', '.join(found)}\n"
        f"bench datasets lists their scenarios"
    )


def _nothing_found(data_root: Path | None) -> str:
    if data_root is None:
        problem = "no folder with data sets given"
    elif not data_root.is_dir():
        problem = f"the folder with data sets {data_root} does not exist"
    elif (data_root / "train").is_dir() or scenario_folders(data_root):
        above = data_root.absolute().parents[1 if (data_root / "train").is_dir() else 0]
        return f"{data_root} is itself a collection or a scenario: pass --data-root {above}"
    else:
        problem = f"no collection found under {data_root}"
    return (
        f"{problem}: expected <collection>/<scenario>/train/good and <collection>/<scenario>/test, such as "
        f"mvtec_ad/bottle/train/good\npoint --data-root or BENCH_DATA at such a folder, or try --datasets demo, which "
        f"needs no data"
    )


def _coverage(collection: Collection, folders: list[Path]) -> str:
    known = known_collection(collection.name)
    if known is None:
        return "1 scenario" if len(folders) == 1 else f"{len(folders)} scenarios"
    others = [folder for folder in folders if folder.name not in known.images]
    text = f"{len(folders) - len(others)} of {collection.scenarios} scenarios"
    return f"{text} and {len(others)} other{'s' if len(others) > 1 else ''}" if others else text
