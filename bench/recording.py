"""Every record: of a cell that worked, failed or was evaluated; and the one rule by which an exception is a failure."""

import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any, Literal

from bench.cell import CellResult
from bench.cells import Cell
from bench.datasets.data_notes import take_notes
from bench.datasets.scenario import Scenario
from bench.errors import user_errors
from bench.machine.devices import Slot
from bench.machine.environment import DISTRIBUTION, environment, package_versions
from bench.models import ModelDescription, has_model, link_model, save_model
from bench.protocol import PROTOCOL
from bench.scoring import Evaluation
from bench.thresholding import Calibration
from methods.registry import load_method
from results.arrays import (
    EXAMPLES_FILE,
    MAPS_FILE,
    NORMAL_MAPS_FILE,
    NormalMaps,
    write_examples,
    write_maps,
    write_normal_maps,
)
from results.atomic import write_atomically
from results.definition_values import DEFINITIONS_FILE, DefinitionValue, write_definitions
from results.epoch_states import ORACLE_FILE, write_epoch_states
from results.migrations import load_record
from results.record import Data, Failure, Record, Weights
from results.regions import REGIONS_FILE, write_regions
from results.store import RECORD_FILE, Draft, RunStore

Fields = Mapping[str, Any]
"""Fields of a record, by name; :class:`results.record.Record` checks them."""

_ARRAYS = (EXAMPLES_FILE, MAPS_FILE, NORMAL_MAPS_FILE, REGIONS_FILE, DEFINITIONS_FILE, ORACLE_FILE)
"""Files of a cell that a failure makes invalid."""
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


def find_record(store: RunStore, cell: Cell) -> Record | None:
    """The cell's record in a run folder, or ``None``.

    Raises:
        ResultError: It exists and cannot be read.
    """
    path = store.cell_directory(cell.id) / RECORD_FILE
    return load_record(path) if path.exists() else None


def failure_of(error: BaseException) -> Failure:
    """Why there are no metrics, from the exception that ended a cell or an evaluation."""
    text = str(error).strip()
    first = text.splitlines()[0] if text else ""
    log_tail = "".join(traceback.format_exception(error)[-20:])
    kind: Literal["memory", "bug"] = "bug"
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        kind = "memory"
    elif isinstance(error, user_errors()):
        return Failure(kind="error", reason=first or type(error).__name__, log_tail=text)
    cause = "out of memory" if kind == "memory" else type(error).__name__
    return Failure(kind=kind, reason=f"{cause}: {first or 'no message'}", log_tail=log_tail)


def cell_fields(cell: Cell, slot: Slot, command: str) -> Fields:
    """What the record of a cell says whatever comes of it."""
    entrant = cell.entrant
    return {
        "key": cell.key,
        "fit_key": cell.fit_key,
        "method": entrant.name,
        "title": entrant.title,
        "source": entrant.source,
        "collection": cell.scenario.collection,
        "scenario": cell.scenario.name,
        "seed": cell.seed,
        "config": entrant.options(),
        "preset": entrant.preset,
        "deviations": list(entrant.deviations),
        "precision": cell.precision,
        "tf32": cell.tf32,
        "weights": [Weights.model_validate(vars(weights)) for weights in entrant.weights],
        "photographs": entrant.photographs.identity if entrant.photographs else None,
        "train_scale": cell.train_scale,
        "environment": environment(slot, load_method(entrant.name).packages),
        "command": command,
    }


def record_cell(
    draft: Draft, cell: Cell, fields: Fields, result: CellResult, *, keep_maps: bool, keep_model: bool
) -> Record:
    """Record a cell that worked; its model is kept where that is asked for, or where it was kept before.

    Returns:
        The record that the cell has by now: another process may have been first.

    Raises:
        ResultError: Something cannot be written.
    """
    facts, directory = result.fitted.facts, draft.directory
    model = None
    if result.fitted.kept is not None:
        model = link_model(result.fitted.kept, directory)
    elif keep_model or has_model(draft.published):
        model = save_model(directory, result.fitted.detector, _description(cell, result))
    of_fit = {
        "training_steps": facts.training_steps,
        "losses": facts.losses,
        "implementation": facts.implementation,
        "data": data_of(cell.scenario, facts.train, facts.validation),
        "model": model.sha256 if model else None,
        "timings": result.timings,
    }
    if result.states is not None:
        write_epoch_states(directory, result.states)
    return record_evaluation(draft, {**fields, **of_fit}, result.evaluation, keep_maps=keep_maps)


def record_evaluation(
    draft: Draft,
    fields: Fields,
    evaluation: Evaluation,
    *,
    keep_maps: bool,
    definitions: Sequence[DefinitionValue] = (),
) -> Record:
    """Record maps that have been scored: the record exists from the moment that all is there.

    Args:
        draft: Of the cell's folder.
        fields: All of the record that the evaluation does not say, ``data`` as of :func:`data_of`.
        evaluation: The maps and what they are worth.
        keep_maps: Keep the maps beside the record.
        definitions: Values under other definitions, kept beside the record.

    Returns:
        The record that the cell has by now: another process may have been first.

    Raises:
        ResultError: Something cannot be written.
    """
    metrics, data = evaluation.metrics, fields["data"]
    outcome = {
        "data": data.model_copy(
            update={
                "notes": [*data.notes, *evaluation.mask_notes],
                "note": "; ".join(filter(None, (data.note, evaluation.mask_warning))) or None,
            }
        ),
        "status": "ok",
        "metrics": evaluation.named(),
        "undefined": evaluation.undefined,
        "notes": list(metrics.notes),
        "images": evaluation.images,
        "thresholds": list(evaluation.thresholded.thresholds),
    }
    record = _record({**fields, **outcome})
    directory = draft.directory
    write_examples(directory, evaluation.examples)
    write_regions(directory, metrics.regions)
    if keep_maps:
        write_maps(directory, dict(zip(evaluation.scenario.names, evaluation.maps.maps, strict=True)))
        if isinstance(evaluation.calibration, Calibration):
            write_normal_maps(directory, _kept(evaluation.calibration))
    if definitions:
        write_definitions(directory, definitions)
    return _published(draft, record)


def _kept(calibration: Calibration) -> NormalMaps:
    scores = calibration.scores
    return NormalMaps(
        dict(zip(calibration.names, calibration.maps, strict=True)), None if scores is None else scores.tolist()
    )


def record_failure(draft: Draft, fields: Fields, failure: Failure) -> Record:
    """Record why there are no metrics; arrays of an earlier attempt go, a model stays: a retry may take it.

    Returns:
        The record that the cell has by now: another process may have been first.

    Raises:
        ResultError: The record cannot be written.
    """
    record = _record({**fields, "status": "failed", "failure": failure})
    return _published(draft, record, remove=_ARRAYS)


def record_files(draft: Draft, files: Mapping[str, bytes]) -> Record:
    """Record a cell as another host has recorded it, whose folder holds these files, by name.

    Returns:
        The record that the cell has by now: another process may have been first.

    Raises:
        ResultError: A file cannot be written, or the record is of another version.
    """
    for name, content in files.items():
        write_atomically(draft.directory / name, partial(_write, content))
    record = load_record(draft.directory / RECORD_FILE)
    return _published(draft, record, remove=() if record.failure is None else _ARRAYS)


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _published(draft: Draft, record: Record, remove: Sequence[str] = ()) -> Record:
    draft.write(record)
    return record if draft.publish(remove) else load_record(draft.published / RECORD_FILE)


def data_of(scenario: Scenario, train: int | None, validation: int | None) -> Data:
    """The scenario's images as a record describes them, with how many a method was fitted and calibrated on."""
    anomalous = sum(image.anomalous for image in scenario.test)
    taken = take_notes(scenario)
    return Data(
        fingerprint=scenario.fingerprint,
        train=train,
        validation=validation,
        test_normal=len(scenario.test) - anomalous,
        test_anomalous=anomalous,
        note="; ".join(filter(None, (scenario.note, taken.warning))) or None,
        notes=[*scenario.notes, *taken.notes],
        bit_depth=taken.bits,
    )


def _description(cell: Cell, result: CellResult) -> ModelDescription:
    return ModelDescription(
        method=cell.entrant.name,
        title=cell.entrant.title,
        config=cell.entrant.options(),
        precision=cell.precision,
        tf32=cell.tf32,
        input_size=result.fitted.detector.input_size,
        fit_key=cell.fit_key,
        record=cell.key,
        fit=result.fitted.facts,
        version=package_versions().get(DISTRIBUTION, "not installed"),
    )


def _record(fields: Fields) -> Record:
    protocol = {"protocol": PROTOCOL.as_record(), "protocol_hash": PROTOCOL.hash, "created": datetime.now(UTC)}
    return Record.model_validate({**fields, **protocol})
