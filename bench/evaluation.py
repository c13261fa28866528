"""``bench evaluate``: score anomaly maps that are there already, without a model and without a GPU."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape

from bench.cell import data_of, image_results, make_examples
from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.images import image_size
from bench.datasets.masks import read_mask
from bench.datasets.scenario import Scenario
from bench.datasets.selection import select_scenarios
from bench.errors import DataError, UsageError, user_errors
from bench.given_maps import SCORES_FILE, find_maps, folders_of, read_map, read_scores, scan
from bench.machine.devices import Slot, usable_cores
from bench.machine.environment import command_line, environment
from bench.options import default_data_root
from bench.progress import outcome_line
from bench.protocol import PROTOCOL
from bench.run import RUNS, locked, report_records
from bench.scoring import OnDemand, Predictions, check_ground_truth, evaluate
from bench.source_digest import code_version
from metrics import UpsampledMaps
from metrics.definitions import evaluate_definitions
from results.arrays import MAPS_FILE, Example, read_maps, write_examples
from results.definition_values import DefinitionValue, write_definitions
from results.record import Failure, MapsSource, Record
from results.regions import RegionResult, write_regions
from results.store import RunStore

ELSEWHERE = "anomaly maps computed elsewhere"
_OUTCOME = {"status", "metrics", "undefined", "notes", "images", "maps", "failure", "timings"}
"""Fields of a kept record that an evaluation of its maps makes anew."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What a user asks of ``bench evaluate``.

    Attributes:
        maps: Folder of maps, or a run folder whose cells kept theirs.
        name: The method, as records and tables call it; only for a folder of maps.
        source: Its paper or product.
        seed: The maps' place among several trainings of one method.
        datasets: As for ``bench run``; ``None`` for all that the maps are of.
        data_root: The folder that holds the collections.
        out: Run folder to write to; a new one when ``None``.
        upsample: Take maps of another size than their image for maps at the network's resolution.
        definitions: Evaluate other definitions of AU-PRO too.
    """

    maps: Path
    name: str | None = None
    source: str | None = None
    seed: int = 0
    datasets: str | None = None
    data_root: Path | None = None
    out: Path | None = None
    upsample: bool = False
    definitions: bool = False


@dataclass(frozen=True, eq=False)
class _Given:
    """Maps of one scenario, to be evaluated.

    Attributes:
        maps: Per test image a float array.
        scores: float64 (n,), the image scores.
        source: Identity of the maps.
    """

    maps: Sequence[NDArray[Any]]
    scores: NDArray[np.float64]
    source: MapsSource


@dataclass(frozen=True)
class _Task:
    """One record to make.

    Attributes:
        scenario: Whose test images the maps are of.
        about: The fields of the record that do not depend on the maps.
        load: Reads the maps, given the images' sizes.
    """

    scenario: Scenario
    about: Mapping[str, Any]
    load: Callable[[Sequence[tuple[int, int]]], _Given]


def evaluate_maps(options: EvaluationOptions, console: Console) -> int:
    """Evaluate maps, record each scenario when it is done, and write the report.

    Returns:
        The exit code: 0, or 3 if some maps could not be evaluated.

    Raises:
        UsageError: The folder holds no maps that fit any data set, or the options make no sense.
        ResultError: The output cannot be written.
    """
    if not options.maps.is_dir():
        raise UsageError(f"there is no folder {options.maps}: give one with anomaly maps, or a run folder")
    cache = Cache(default_cache_directory())
    is_run = (options.maps / "cells").is_dir()
    tasks = list(_kept_by_run(options, cache) if is_run else _from_elsewhere(options, cache, console))
    out = options.out or RUNS / datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    if is_run and out.resolve() == options.maps.resolve():
        raise UsageError(f"{out} holds the maps: choose another folder with --out, so that its records stay")
    console.print(f"run folder: {escape(str(out))}", highlight=False, soft_wrap=True)
    store = RunStore(out)
    records = []
    with locked(out):
        for number, task in enumerate(tasks, start=1):
            with console.status(f"evaluating {escape(task.scenario.id)}"):
                record = _record(task, store, options.definitions)
            records.append(record)
            console.print(f"{outcome_line(record)} [{number} of {len(tasks)}]", highlight=False, soft_wrap=True)
            if options.definitions and record.status == "ok" and record.metrics.get("au_pro@0.3") is None:
                console.print("  no other definitions: AU-PRO is not defined here", highlight=False, soft_wrap=True)
        return report_records(records, store, "mend what they name and run the same command again", console)


def _from_elsewhere(options: EvaluationOptions, cache: Cache, console: Console) -> Iterator[_Task]:
    """Tasks for the scenarios that a folder has maps of."""
    if not options.name:
        raise UsageError("--name is missing: what records and tables call the method that made these maps")
    root = options.data_root or default_data_root()
    scenarios = select_scenarios(options.datasets or "all", root, cache)
    folders = {scenario.id: folders_of(scenario, options.maps) for scenario in scenarios}
    chosen = [(scenario, folders[scenario.id][0]) for scenario in scenarios if folders[scenario.id]]
    if not chosen:
        raise UsageError(
            f"{options.maps} has no maps of {', '.join(scenario.id for scenario in scenarios)}\n"
            f"  Expected, for example, {options.maps / scenarios[0].name}/test/<defect>/<stem>.tiff"
        )
    for folder, count in Counter(folder for _, folder in chosen).items():
        if count > 1:
            names = [scenario.id for scenario, own in chosen if own == folder]
            raise UsageError(
                f"{folder} could be maps of {' or of '.join(names)}: say which with --datasets, or put them in "
                f"{options.maps / names[0]}"
            )
    without = [scenario.id for scenario in scenarios if not folders[scenario.id]]
    if without:
        console.print(f"no maps of {escape(', '.join(without))}", highlight=False, soft_wrap=True)
    about = {
        "method": options.name,
        "title": options.name,
        "source": options.source or "not stated",
        "seed": options.seed,
        "deviations": [ELSEWHERE],
        "environment": environment(Slot(0, "cpu", usable_cores())),
    }
    for scenario, folder in chosen:
        scored = "given" if (folder / SCORES_FILE).is_file() else "maximum of the map"
        config = {"image_score": scored, "upsampled": options.upsample}
        yield _Task(
            scenario, {**about, "config": config}, _folder_loader(scenario, folder, options.upsample, cache, console)
        )


def _folder_loader(
    scenario: Scenario, folder: Path, upsample: bool, cache: Cache, console: Console
) -> Callable[[Sequence[tuple[int, int]]], _Given]:
    def load(sizes: Sequence[tuple[int, int]]) -> _Given:
        maps = find_maps(scenario, folder)
        if maps.ignored:
            console.print(
                f"[yellow]ignored in {escape(str(folder))}:[/] {len(maps.ignored)} of the map files, which belong to "
                f"no test image, such as {escape(str(maps.ignored[0]))}",
                highlight=False,
                soft_wrap=True,
            )
        highest, scores = scan(maps, scenario, sizes, upsample=upsample), read_scores(maps, scenario)
        return _Given(
            maps=OnDemand(len(maps.files), lambda index: read_map(maps.files[index])),
            scores=highest if scores is None else scores,
            source=MapsSource(sha256=maps.digest(cache)),
        )

    return load


def _kept_by_run(options: EvaluationOptions, cache: Cache) -> Iterator[_Task]:
    """Tasks for the cells of a run that kept their maps."""
    for given, flag in ((options.name, "--name"), (options.source, "--source"), (options.upsample, "--upsample")):
        if given:
            raise UsageError(f"{flag} is for maps from elsewhere: the cells of the run {options.maps} have their own")
    store = RunStore(options.maps)
    records = [record for record in store.records() if record.status == "ok"]
    if not any((store.cell_directory(record) / MAPS_FILE).is_file() for record in records):
        raise UsageError(f"no cell of {options.maps} has kept its maps\n  Run it again with bench run --keep-maps.")
    root = options.data_root or default_data_root()
    names = {record.key: f"{record.collection.name}/{record.scenario}" for record in records}
    if options.datasets is not None:
        wanted = {scenario.id for scenario in select_scenarios(options.datasets, root, cache)}
        records = [record for record in records if names[record.key] in wanted]
        if not records:
            raise UsageError(f"no cell of {options.maps} is of {options.datasets}: it has {', '.join(names.values())}")
    scenarios: dict[str, Scenario] = {}
    for record in records:
        name = names[record.key]
        if name not in scenarios:
            scenarios[name] = select_scenarios(name, root, cache)[0]
        about = {field: value for field, value in record if field not in _OUTCOME}
        yield _Task(scenarios[name], about, _run_loader(record, store.cell_directory(record), scenarios[name]))


def _run_loader(record: Record, directory: Path, scenario: Scenario) -> Callable[[Sequence[tuple[int, int]]], _Given]:
    def load(sizes: Sequence[tuple[int, int]]) -> _Given:
        kept = read_maps(directory)
        scores = {image.name: image.score for image in record.images}
        names = [image.name for image in scenario.test]
        if record.data is None or scenario.fingerprint != record.data.fingerprint or set(names) != set(kept):
            raise DataError(f"the files of {scenario.id} are not those that the maps in {directory} were made for")
        digest = hashlib.sha256()
        for name in sorted(kept):
            digest.update(f"{name}\0{kept[name].shape}{kept[name].dtype}\0".encode() + kept[name].tobytes())
        return _Given(
            maps=[kept[name] for name in names],
            scores=np.array([scores[name] for name in names]),
            source=MapsSource(sha256=digest.hexdigest(), record=record.key),
        )

    return load


def _record(task: _Task, store: RunStore, definitions: bool) -> Record:
    """Evaluate one scenario and store what comes of it; what the user can mend becomes a failed record."""
    scenario = task.scenario
    outcome: dict[str, Any]
    examples: list[Example] = []
    regions: tuple[RegionResult, ...] = ()
    others: list[DefinitionValue] = []
    try:
        scenario.check_test()
        sizes = [image_size(image.path) for image in scenario.test]
        check_ground_truth(scenario.test, sizes, saturated=scenario.saturated)
        given = task.load(sizes)
        found = Predictions(given.maps, given.scores)
        scores = evaluate(found, scenario.test, sizes, PROTOCOL, saturated=scenario.saturated, threads=usable_cores())
        images, regions = image_results(scenario, given.scores), scores.regions
        outcome = {
            "key": _key(task, given),
            "status": "ok",
            "data": task.about.get("data") or data_of(scenario, train=None, validation=None),
            "maps": given.source,
            "metrics": scores.metrics,
            "undefined": scores.undefined,
            "notes": scores.notes,
            "images": images,
        }
        examples = make_examples(scenario, images, sizes, given.maps)
        # Where AU-PRO itself is undefined, or the metric is another one, there is nothing to compare.
        if definitions and scores.metrics.get("au_pro@0.3") is not None:
            others = _definitions(given, scenario, sizes)
    except user_errors() as error:
        failure = Failure(kind="error", reason=str(error).splitlines()[0], log_tail=str(error))
        outcome = {"key": _key(task, None), "status": "failed", "failure": failure}
    record = Record.model_validate(
        {
            **task.about,
            "collection": scenario.collection,
            "scenario": scenario.name,
            "protocol": PROTOCOL.as_record(),
            "protocol_hash": PROTOCOL.hash,
            "command": command_line(),
            "created": datetime.now(UTC),
            **outcome,
        }
    )
    if record.status == "ok":
        # An earlier attempt may have failed on maps that have been mended since.
        store.remove(record.model_copy(update={"key": _key(task, None)}))
        write_examples(store.cell_directory(record), examples)
        write_regions(store.cell_directory(record), regions)
        if others:
            write_definitions(store.cell_directory(record), others)
    store.write(record)
    return record


def _key(task: _Task, given: _Given | None) -> str:
    """The key of a record; without maps that of a failure, whatever it is due to."""
    determines: dict[str, Any] = {
        "method": task.about["method"],
        "scenario": task.scenario.id,
        "seed": task.about["seed"],
        "kept": task.about.get("key"),
    }
    if given is not None:
        determines |= {
            "maps": given.source.model_dump(),
            "config": task.about["config"],
            "data": task.scenario.fingerprint,
            "protocol": PROTOCOL.hash,
            "code": code_version(),
        }
    return hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()


def _definitions(given: _Given, scenario: Scenario, sizes: Sequence[tuple[int, int]]) -> list[DefinitionValue]:
    images = scenario.test
    masks = OnDemand(len(images), lambda index: read_mask(images[index], sizes[index]))
    maps = UpsampledMaps(given.maps, list(sizes))
    names = [image.name for image in images]
    return [
        DefinitionValue(
            name=found.definition.name,
            description=found.definition.description,
            source=found.definition.source,
            value=None if math.isnan(found.value) else found.value,
            deviation=None if math.isnan(found.value) else found.deviation,
        )
        for found in evaluate_definitions(maps, masks, names=names, threads=usable_cores())
    ]
