"""``bench evaluate``: score anomaly maps that are there already, or that the kept models of a run predict again."""

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.masks import GroundTruth
from bench.datasets.pixels import image_size
from bench.datasets.scenario import Scenario
from bench.datasets.selection import select_scenarios
from bench.errors import BenchError, UsageError
from bench.given_maps import SCORES_FILE, folders_of
from bench.keys import score_key
from bench.machine.devices import Slot, choose_slots, make_products_deterministic, usable_cores
from bench.machine.environment import command_line, environment
from bench.map_origins import (
    ELSEWHERE,
    FolderOrigin,
    KeptMapsOrigin,
    KeptModelOrigin,
    LoadedMaps,
    MapOrigin,
)
from bench.models import has_model
from bench.options import EvaluationOptions
from bench.progress import outcome_line
from bench.recording import Fields, data_of, failure_of, record_evaluation, record_failure
from bench.run_folder import locked, new_folder
from bench.scoring import Evaluation, evaluate, masks_of, read_and_check
from bench.summary import report_records
from metrics import UpsampledMaps
from metrics.definitions import evaluate_definitions
from results.arrays import MAPS_FILE
from results.definition_values import DefinitionValue
from results.record import Data, MapsSource, Record
from results.store import CellId, Draft, RunStore

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class PreparedEvaluation:
    """An evaluation before its first scenario.

    Attributes:
        origins: Where the maps of each record to make come from.
        store: The run folder to write to.
        command: What the records say has made them.
        keep_maps: Keep the maps beside the records.
        definitions: Evaluate other definitions of AU-PRO too.
    """

    origins: list[MapOrigin]
    store: RunStore
    command: str
    keep_maps: bool
    definitions: bool


def prepare(options: EvaluationOptions, command: str, say: Say) -> PreparedEvaluation:
    """Find out which maps there are to evaluate.

    Args:
        options: What the user asks for.
        command: What the records say has made them.
        say: Is told, in one line each, what the user should know.

    Raises:
        UsageError: The folder holds no maps that fit any data set, or the options make no sense.
        ResultError: A run folder cannot be read.
    """
    cache = Cache(default_cache_directory())
    definitions = options.definitions is not None
    if options.model is not None:
        origins = _by_artefact(options, cache)
        return PreparedEvaluation(origins, RunStore(options.out or new_folder()), command, False, definitions)
    if options.maps is None or not options.maps.is_dir():
        raise UsageError(f"there is no folder {options.maps}: give one with anomaly maps, or a run folder")
    is_run = (options.maps / "cells").is_dir()
    if options.with_models and not is_run:
        raise UsageError(f"--with-models is for run folders: {options.maps} is none")
    origins = list(_kept_by_run(options, cache) if is_run else _from_elsewhere(options, cache, say))
    out = options.out or new_folder()
    if is_run and out.resolve() == options.maps.resolve():
        raise UsageError(f"{out} holds the maps: choose another folder with --out, so that its records stay")
    return PreparedEvaluation(origins, RunStore(out), command, options.with_models, definitions)


def execute(prepared: PreparedEvaluation) -> Iterator[Record]:
    """Evaluate the maps of one scenario after the other and record each; the run folder has to be locked.

    Raises:
        ResultError: A record cannot be written.
    """
    return (_evaluate_and_record(origin, prepared) for origin in prepared.origins)


def evaluate_maps(options: EvaluationOptions, console: Console) -> int:
    """Evaluate maps, record each scenario when it is done, and write the report.

    Returns:
        The exit code: 0, or 3 if some maps could not be evaluated.

    Raises:
        UsageError: The folder holds no maps that fit any data set, or the options make no sense.
        ResultError: A run folder cannot be read, or the output cannot be written.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    prepared = prepare(options, command_line(), lambda text: say(escape(text)))
    store, total = prepared.store, len(prepared.origins)
    say(f"run folder: {escape(str(store.root))}")
    records: list[Record] = []
    with locked(store.root):
        for origin in prepared.origins:
            with console.status(f"evaluating {escape(origin.scenario.id)}"):
                record = _evaluate_and_record(origin, prepared)
            records.append(record)
            say(f"{outcome_line(record)} [{len(records)} of {total}]")
            if prepared.definitions and record.status == "ok" and not _has_au_pro(record.metrics):
                say("  no other definitions: AU-PRO is not defined here")
        return report_records(records, store, "mend what they name and run the same command again", console)


def _by_artefact(options: EvaluationOptions, cache: Cache) -> list[MapOrigin]:
    """The scenarios that an exported detector is to be evaluated on: the one of its fit where none is named."""
    from bench.artefacts.origin import ArtefactOrigin
    from bench.artefacts.running import open_artefact

    assert options.model is not None
    given = {"MAPS": options.maps, "--name": options.name, "--source": options.source, "--upsample": options.upsample}
    for flag in [flag for flag, value in {**given, "--with-models": options.with_models}.items() if value]:
        raise UsageError(f"{flag} does not go with --model: the exported detector says what it is")
    artefact = open_artefact(options.model, usable_cores())
    wanted = options.datasets or artefact.description.scenario
    scenarios = select_scenarios(wanted, options.data_root, cache, options.masks)
    return [ArtefactOrigin(scenario, artefact, options.model, cache) for scenario in scenarios]


def _from_elsewhere(options: EvaluationOptions, cache: Cache, say: Say) -> Iterator[MapOrigin]:
    """The scenarios that a folder has maps of."""
    assert options.maps is not None
    if not options.name:
        raise UsageError("--name is missing: what records and tables call the method that made these maps")
    scenarios = select_scenarios(options.datasets or "all", options.data_root, cache, options.masks)
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
    for scenario, _ in chosen:
        naming_it = [folder for folder in folders[scenario.id] if folder.parent != options.maps]
        if len(naming_it) > 1:
            raise UsageError(f"{' and '.join(map(str, naming_it))} both hold maps of {scenario.id}: remove one")
    without = [scenario.id for scenario in scenarios if not folders[scenario.id]]
    if without:
        say(f"no maps of {', '.join(without)}")
    for scenario, folder in chosen:
        scored = "given" if (folder / SCORES_FILE).is_file() else "maximum of the map"
        fields = {
            "method": options.name,
            "title": options.name,
            "source": options.source or "not stated",
            "seed": options.seed,
            "config": {"image_score": scored, "upsampled": options.upsample},
            "deviations": [ELSEWHERE],
            "environment": environment(Slot(0, "cpu", usable_cores())),
        }
        yield FolderOrigin(scenario, fields, folder, options.upsample, cache, say)


def _kept_by_run(options: EvaluationOptions, cache: Cache) -> Iterator[MapOrigin]:
    """The cells of a run that kept their maps, or their models."""
    assert options.maps is not None
    for given, flag in ((options.name, "--name"), (options.source, "--source"), (options.upsample, "--upsample")):
        if given:
            raise UsageError(f"{flag} is for maps from elsewhere: the cells of the run {options.maps} have their own")
    store = RunStore(options.maps)
    records = [record for record in store.records() if record.status == "ok"]
    kept = [
        has_model(folder) if options.with_models else (folder / MAPS_FILE).is_file()
        for folder in map(store.cell_directory, records)
    ]
    if not any(kept):
        what, flag = ("models", "--keep-models") if options.with_models else ("maps", "--keep-maps")
        raise UsageError(f"no cell of {options.maps} has kept its {what}\n  Run it again with bench run {flag}.")
    if options.datasets is not None:
        wanted = {scenario.id for scenario in select_scenarios(options.datasets, options.data_root, cache)}
        names = [_scenario_id(record) for record in records]
        records = [record for record in records if _scenario_id(record) in wanted]
        if not records:
            raise UsageError(f"no cell of {options.maps} is of {options.datasets}: it has {', '.join(names)}")
    make_products_deterministic()  # as in the cells
    scenarios: dict[str, Scenario] = {}
    for record in records:
        name, folder = _scenario_id(record), store.cell_directory(record)
        if name not in scenarios:
            scenarios[name] = _scenario_of(record, options, cache)
        if options.with_models:
            slot = choose_slots(record.environment.device.partition(":")[0], 1)[0]
            # As many threads as in the cell: sums that are shared out otherwise differ in their last bits.
            same = dataclasses.replace(slot, threads=record.environment.threads)
            yield KeptModelOrigin(scenarios[name], record, folder, same, cache)
        else:
            yield KeptMapsOrigin(scenarios[name], record, folder)


def _scenario_of(record: Record, options: EvaluationOptions, cache: Cache) -> Scenario:
    """The scenario of a record; one that cannot be found or listed any more says so when it is checked."""
    try:
        return select_scenarios(_scenario_id(record), options.data_root, cache, options.masks)[0]
    except BenchError as error:
        why = str(error).splitlines()[0]
        return Scenario(record.collection, record.scenario, train=(), validation=(), test=(), problems=(why,))


def _scenario_id(record: Record) -> str:
    return f"{record.collection.name}/{record.scenario}"


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What evaluating the maps of one scenario yields."""

    loaded: LoadedMaps
    evaluation: Evaluation
    definitions: list[DefinitionValue]


def _evaluate_and_record(origin: MapOrigin, prepared: PreparedEvaluation) -> Record:
    """Evaluate one scenario and record what comes of it."""
    store, scenario = prepared.store, origin.scenario
    # Without maps there is one key, that of a failure, whatever it is due to.
    fields = {
        **origin.fields,
        "key": _key(origin, None),
        "collection": scenario.collection,
        "scenario": scenario.name,
        "command": prepared.command,
    }
    try:
        outcome = _evaluate(origin, prepared.definitions)
    except Exception as error:
        return record_failure(_draft(store, fields), fields, failure_of(error))
    source = outcome.loaded.source
    # Of a kept record, too: its files are the same, but not what is said of their masks.
    kept: Data | None = origin.fields.get("data")
    data = data_of(scenario, kept.train if kept else None, kept.validation if kept else None)
    of_maps = {
        "key": _key(origin, source),
        "maps": source,
        "data": data.model_copy(update={"notes": [*data.notes, *outcome.loaded.notes]}),
    }
    evaluated = {**fields, **of_maps}
    record = record_evaluation(
        _draft(store, evaluated),
        evaluated,
        outcome.evaluation,
        keep_maps=prepared.keep_maps,
        definitions=outcome.definitions,
    )
    # An earlier attempt may have failed on maps that have been mended since.
    store.remove(record.model_copy(update={"key": fields["key"]}))
    return record


def _draft(store: RunStore, fields: Fields) -> Draft:
    names = (fields["method"], fields["collection"].name, fields["scenario"], fields["seed"], fields["key"])
    return store.draft(CellId(*names))


def _evaluate(origin: MapOrigin, definitions: bool) -> _Outcome:
    scenario = origin.scenario
    scenario.check_test()
    sizes = [image_size(image.path) for image in scenario.test]
    truth = read_and_check(scenario, sizes)
    loaded = origin.load(sizes)
    evaluation = evaluate(loaded.maps, truth, usable_cores(), loaded.calibration)
    # Where AU-PRO itself is undefined, or the metric is another one, there is nothing to compare.
    compared = definitions and _has_au_pro(evaluation.metrics.named())
    return _Outcome(loaded, evaluation, _definition_values(evaluation, truth) if compared else [])


def _has_au_pro(metrics: dict[str, float | None]) -> bool:
    return metrics.get("au_pro@0.3") is not None


def _key(origin: MapOrigin, source: MapsSource | None) -> str:
    """The key of a record of these maps; of a failure, which stands for maps that nobody knows, without them."""
    determines: dict[str, Any] = {
        "method": origin.fields["method"],
        "seed": origin.fields["seed"],
        "kept": origin.record_key,
        "maps": source.model_dump() if source else None,
        "config": origin.fields["config"] if source else None,
    }
    maps = hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()
    if source is not None:
        return score_key(maps, origin.scenario)
    return hashlib.sha256(f"failed {maps} {origin.scenario.id}".encode()).hexdigest()


def _definition_values(evaluation: Evaluation, truth: GroundTruth) -> list[DefinitionValue]:
    maps = UpsampledMaps(evaluation.maps.maps, list(truth.sizes))
    names = evaluation.scenario.names
    values = evaluate_definitions(maps, masks_of(truth), names=names, threads=usable_cores())
    return [
        DefinitionValue(
            name=value.definition.name,
            description=value.definition.description,
            source=value.definition.source,
            value=None if math.isnan(value.value) else value.value,
            deviation=None if math.isnan(value.value) else value.deviation,
        )
        for value in values
    ]
