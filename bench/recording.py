"""Records of cells: those that worked and those that failed."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.cell import Measurement
from bench.plan import Cell
from bench.protocol import PROTOCOL
from results.arrays import EXAMPLES_FILE, MAPS_FILE, write_examples, write_maps
from results.migrations import load_record
from results.record import Environment, Failure, Record, Weights
from results.regions import REGIONS_FILE, write_regions
from results.store import RECORD_FILE, RunStore


def find_record(store: RunStore, cell: Cell) -> Record | None:
    """The cell's record in a run folder, or ``None``.

    Raises:
        ResultError: It exists and cannot be read.
    """
    path = store.cell_directory(cell.id) / RECORD_FILE
    return load_record(path) if path.exists() else None


def store_outcome(
    store: RunStore,
    cell: Cell,
    outcome: Measurement | Failure,
    environment: Environment,
    command: str,
) -> Record:
    """Write what came of a cell, its arrays first: the cell is done from the moment its record exists.

    Raises:
        ResultError: It cannot be written.
    """
    folder = store.cell_directory(cell.id)
    if isinstance(outcome, Failure):
        _remove(folder / EXAMPLES_FILE, folder / MAPS_FILE, folder / REGIONS_FILE)
        record = _record(cell, environment, command, status="failed", failure=outcome)
    else:
        write_examples(folder, outcome.examples)
        write_regions(folder, outcome.scores.regions)
        if outcome.maps:
            write_maps(folder, outcome.maps)
        record = _record(
            cell,
            environment,
            command,
            status="ok",
            training_steps=outcome.training_steps,
            losses=outcome.losses,
            data=outcome.data,
            metrics=outcome.scores.metrics,
            undefined=outcome.scores.undefined,
            notes=outcome.scores.notes,
            images=outcome.images,
            timings=outcome.timings,
        )
    store.write(record)
    return record


def _record(cell: Cell, environment: Environment, command: str, **outcome: Any) -> Record:
    entrant = cell.entrant
    return Record(
        key=cell.key,
        method=entrant.name,
        title=entrant.title,
        source=entrant.source,
        collection=cell.scenario.collection,
        scenario=cell.scenario.name,
        seed=cell.seed,
        config=entrant.options(),
        preset=entrant.preset,
        deviations=list(entrant.deviations),
        weights=[Weights.model_validate(vars(weights)) for weights in entrant.weights],
        photographs=entrant.photographs.identity if entrant.photographs else None,
        protocol=PROTOCOL.as_record(),
        protocol_hash=PROTOCOL.hash,
        train_scale=cell.train_scale,
        environment=environment,
        command=command,
        created=datetime.now(UTC),
        **outcome,
    )


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
