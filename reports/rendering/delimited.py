"""Records and means as CSV: full precision, one line per number."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from reports.content.aggregate import Row, aggregate
from reports.content.other_definitions import definitions_of
from reports.content.selection import Cell, Selection
from reports.content.tables import available_metrics
from results.definition_values import DefinitionValue
from results.record import Collection

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class MetricLine(NamedTuple):
    """One metric of one cell; ``value`` is a fraction, empty where undefined for the reason beside it."""

    method: str
    title: str
    collection: str
    scenario: str
    seed: int
    train_scale: float
    metric: str
    value: float | None
    undefined: str | None
    key: str
    protocol_hash: str
    data_fingerprint: str | None


class MeanLine(NamedTuple):
    """One metric of one row of the tables: mean over scenarios and seeds, standard deviation over seeds."""

    method: str
    title: str
    collection: str
    train_scale: float
    metric: str
    mean: float | None
    standard_deviation: float | None
    scenarios: int
    of_scenarios: int | None
    seeds: int
    scenario_names: str
    seed_list: str


class CellLine(NamedTuple):
    """How one cell ended, what it used, and how many seconds each stage took (no latency claim)."""

    method: str
    title: str
    collection: str
    scenario: str
    seed: int
    status: str
    failure: str | None
    preset: str | None
    train_scale: float
    training_steps: int | None
    config: str
    deviations: str
    weights: str
    train_images: int | None
    validation_images: int | None
    test_normal_images: int | None
    test_anomalous_images: int | None
    data_note: str | None
    decode_s: float | None
    fit_s: float | None
    maps_s: float | None
    metrics_s: float | None
    device: str
    cpu: str
    gpu: str | None
    git_commit: str | None
    git_dirty: bool | None
    created: str
    command: str
    key: str


class DefinitionLine(NamedTuple):
    """One definition of AU-PRO applied to one cell's maps; no result. ``deviation`` is from the exact one at 0.3."""

    method: str
    title: str
    collection: str
    scenario: str
    seed: int
    definition: str
    value: float | None
    deviation: float | None
    description: str
    source: str
    key: str


def protect(text: str) -> str:
    """Keep a spreadsheet from taking text for a formula: such text gets a leading apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def metrics_csv(selection: Selection) -> str:
    """Every metric of every cell."""
    lines = [_metric_line(cell, metric) for cell in selection.cells for metric in sorted(cell.record.metrics)]
    return _write(MetricLine._fields, lines)


def means_csv(selection: Selection) -> str:
    """Every metric of every row of the tables."""
    lines = []
    for part in selection.parts:
        metrics = sorted(available_metrics(part.cells))
        rows = aggregate(part.cells, metrics)
        lines += [_mean_line(part.collection, row, metric) for row in rows for metric in metrics]
    return _write(MeanLine._fields, lines)


def cells_csv(selection: Selection) -> str:
    """Every cell, those that failed too."""
    return _write(CellLine._fields, [_cell_line(cell) for cell in selection.cells])


def definitions_csv(selection: Selection) -> str | None:
    """Every cell's maps under every definition; ``None`` if no cell has any.

    Raises:
        results.errors.ResultError: A definitions file is damaged.
    """
    lines = [_definition_line(cell, value) for cell in selection.cells for value in definitions_of(cell)]
    return _write(DefinitionLine._fields, lines) if lines else None


def _definition_line(cell: Cell, found: DefinitionValue) -> DefinitionLine:
    return DefinitionLine(
        method=cell.record.method,
        title=cell.variant.label,
        collection=cell.record.collection.name,
        scenario=cell.record.scenario,
        seed=cell.record.seed,
        definition=found.name,
        value=found.value,
        deviation=found.deviation,
        description=found.description,
        source=found.source,
        key=cell.record.key,
    )


def _metric_line(cell: Cell, metric: str) -> MetricLine:
    record = cell.record
    return MetricLine(
        method=record.method,
        title=cell.variant.label,
        collection=record.collection.name,
        scenario=record.scenario,
        seed=record.seed,
        train_scale=record.train_scale,
        metric=metric,
        value=record.metrics[metric],
        undefined=record.undefined.get(metric),
        key=record.key,
        protocol_hash=record.protocol_hash,
        data_fingerprint=record.data.fingerprint if record.data else None,
    )


def _mean_line(collection: Collection, row: Row, metric: str) -> MeanLine:
    mean = row.means[metric]
    return MeanLine(
        method=row.variant.method,
        title=row.variant.label,
        collection=collection.name,
        train_scale=row.variant.train_scale,
        metric=metric,
        mean=mean.value,
        standard_deviation=mean.deviation,
        scenarios=mean.scenarios,
        of_scenarios=collection.scenarios,
        seeds=mean.seeds,
        scenario_names="; ".join(sorted({scenario for scenario, _ in mean.coverage})),
        seed_list=" ".join(str(seed) for seed in sorted({seed for _, seed in mean.coverage})),
    )


def _cell_line(cell: Cell) -> CellLine:
    record, data, timings, environment = cell.record, cell.record.data, cell.record.timings, cell.record.environment
    return CellLine(
        method=record.method,
        title=cell.variant.label,
        collection=record.collection.name,
        scenario=record.scenario,
        seed=record.seed,
        status=record.status,
        failure=record.failure.reason if record.failure else None,
        preset=record.preset,
        train_scale=record.train_scale,
        training_steps=record.training_steps,
        config=json.dumps(record.config, sort_keys=True),
        deviations="; ".join(record.deviations),
        weights="; ".join(f"{weight.name} {weight.sha256 or weight.source}" for weight in record.weights),
        train_images=data.train if data else None,
        validation_images=data.validation if data else None,
        test_normal_images=data.test_normal if data else None,
        test_anomalous_images=data.test_anomalous if data else None,
        data_note=data.note if data else None,
        decode_s=timings.decode if timings else None,
        fit_s=timings.fit if timings else None,
        maps_s=timings.maps if timings else None,
        metrics_s=timings.metrics if timings else None,
        device=environment.device,
        cpu=environment.cpu,
        gpu=environment.gpu,
        git_commit=environment.git_commit,
        git_dirty=environment.git_dirty,
        created=record.created.isoformat(),
        command=record.command,
        key=record.key,
    )


def _write(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([protect(value) if isinstance(value, str) else value for value in line] for line in lines)
    return buffer.getvalue()
