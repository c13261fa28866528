"""Records and means as CSV: full precision, one line per number."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from reports.content.aggregate import Mean, Row, aggregate
from reports.content.other_definitions import definitions_of
from reports.content.selection import Result, Selection
from reports.content.tables import available_metrics
from reports.content.thresholds import f1_metrics
from reports.content.timings import TimingSelection
from reports.content.variants import Variant
from results.definition_values import DefinitionValue
from results.record import Collection, Record, Threshold
from results.timing_rows import TimingRow

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Line = TypeVar("Line")
Value = str | int | float | None
Columns = Mapping[str, Callable[[Line], Value]]
"""A column's name to what stands in it."""


class _Metric(NamedTuple):
    """One metric of one cell."""

    variant: Variant
    record: Record
    name: str


class _Mean(NamedTuple):
    """One metric of one row of the tables: mean over scenarios and seeds, standard deviation over seeds."""

    collection: Collection
    row: Row
    metric: str

    @property
    def mean(self) -> Mean:
        return self.row.means[self.metric]


class _Threshold(NamedTuple):
    """One threshold of one cell, what it promises and what it does."""

    result: Result
    threshold: Threshold

    @property
    def record(self) -> Record:
        return self.result.record

    def metric(self, name: str | None) -> float | None:
        return None if name is None else self.record.metrics.get(name)


class _Definition(NamedTuple):
    """One definition of AU-PRO applied to one cell's maps; no result. Its deviation is from the exact one at 0.3."""

    result: Result
    definition: DefinitionValue


# Values are fractions, empty where undefined for the reason beside them.
_METRICS: Columns[_Metric] = {
    "method": lambda line: line.record.method,
    "title": lambda line: line.variant.label,
    "collection": lambda line: line.record.collection.name,
    "scenario": lambda line: line.record.scenario,
    "seed": lambda line: line.record.seed,
    "train_scale": lambda line: line.record.train_scale,
    "metric": lambda line: line.name,
    "value": lambda line: line.record.metrics[line.name],
    "undefined": lambda line: line.record.undefined.get(line.name),
    "key": lambda line: line.record.key,
    "protocol_hash": lambda line: line.record.protocol_hash,
    "data_fingerprint": lambda line: line.record.data.fingerprint if line.record.data else None,
}

_MEANS: Columns[_Mean] = {
    "method": lambda line: line.row.variant.method,
    "title": lambda line: line.row.variant.label,
    "collection": lambda line: line.collection.name,
    "train_scale": lambda line: line.row.variant.train_scale,
    "metric": lambda line: line.metric,
    "mean": lambda line: line.mean.value,
    "standard_deviation": lambda line: line.mean.deviation,
    "scenarios": lambda line: line.mean.scenarios,
    "of_scenarios": lambda line: line.collection.scenarios,
    "seeds": lambda line: line.mean.seeds,
    "scenario_names": lambda line: "; ".join(sorted({scenario for scenario, _ in line.mean.coverage})),
    "seed_list": lambda line: " ".join(str(seed) for seed in sorted({seed for _, seed in line.mean.coverage})),
}

# How a cell ended, after how many attempts that left no record; what it used, and how many seconds each stage took (no
# latency claim).
_CELLS: Columns[Result] = {
    "method": lambda result: result.record.method,
    "title": lambda result: result.variant.label,
    "collection": lambda result: result.record.collection.name,
    "scenario": lambda result: result.record.scenario,
    "seed": lambda result: result.record.seed,
    "status": lambda result: result.record.status,
    "failure": lambda result: result.record.failure.reason if result.record.failure else None,
    "interrupted": lambda result: len(result.record.interrupted),
    "preset": lambda result: result.record.preset,
    "train_scale": lambda result: result.record.train_scale,
    "precision": lambda result: result.record.precision,
    "tf32": lambda result: result.record.tf32,
    "training_steps": lambda result: result.record.training_steps,
    "config": lambda result: json.dumps(result.record.config, sort_keys=True),
    "deviations": lambda result: "; ".join(result.record.deviations),
    "implementation": lambda result: "; ".join(f"{part}: {path}" for part, path in _implementation(result)),
    "weights": lambda result: "; ".join(f"{item.name} {item.sha256 or item.source}" for item in result.record.weights),
    "train_images": lambda result: result.record.data.train if result.record.data else None,
    "validation_images": lambda result: result.record.data.validation if result.record.data else None,
    "test_normal_images": lambda result: result.record.data.test_normal if result.record.data else None,
    "test_anomalous_images": lambda result: result.record.data.test_anomalous if result.record.data else None,
    "data_note": lambda result: result.record.data.note if result.record.data else None,
    "data_notes": lambda result: "; ".join(result.record.data.notes) if result.record.data else None,
    "bit_depth": lambda result: result.record.data.bit_depth if result.record.data else None,
    "decode_s": lambda result: result.record.timings.decode if result.record.timings else None,
    "fit_s": lambda result: result.record.timings.fit if result.record.timings else None,
    "maps_s": lambda result: result.record.timings.maps if result.record.timings else None,
    "metrics_s": lambda result: result.record.timings.metrics if result.record.timings else None,
    "device": lambda result: result.record.environment.device,
    "cpu": lambda result: result.record.environment.cpu,
    "gpu": lambda result: result.record.environment.gpu,
    "git_commit": lambda result: result.record.environment.git_commit,
    "git_dirty": lambda result: result.record.environment.git_dirty,
    "created": lambda result: result.record.created.isoformat(),
    "command": lambda result: result.record.command,
    "fit_key": lambda result: result.record.fit_key,
    "key": lambda result: result.record.key,
}

_THRESHOLDS: Columns[_Threshold] = {
    "method": lambda line: line.record.method,
    "title": lambda line: line.result.variant.label,
    "collection": lambda line: line.record.collection.name,
    "scenario": lambda line: line.record.scenario,
    "seed": lambda line: line.record.seed,
    "level": lambda line: line.threshold.level,
    "rule": lambda line: line.threshold.rule,
    "threshold": lambda line: line.threshold.value,
    "calibrated_on": lambda line: line.threshold.calibrated_on,
    "calibration_images": lambda line: line.threshold.images,
    "rate_of": lambda line: line.threshold.rate_of,
    "declared_fpr": lambda line: line.threshold.declared_false_positive_rate,
    "realised_fpr": lambda line: line.threshold.realised_false_positive_rate,
    "image_f1": lambda line: line.metric(f1_metrics(line.threshold)[0]),
    "pixel_f1": lambda line: line.metric(f1_metrics(line.threshold)[1]),
    "key": lambda line: line.record.key,
}

_DEFINITIONS: Columns[_Definition] = {
    "method": lambda line: line.result.record.method,
    "title": lambda line: line.result.variant.label,
    "collection": lambda line: line.result.record.collection.name,
    "scenario": lambda line: line.result.record.scenario,
    "seed": lambda line: line.result.record.seed,
    "definition": lambda line: line.definition.name,
    "value": lambda line: line.definition.value,
    "deviation": lambda line: line.definition.deviation,
    "description": lambda line: line.definition.description,
    "source": lambda line: line.definition.source,
    "key": lambda line: line.result.record.key,
}


# Of every row that was timed, also of those that are no measurement; times are milliseconds.
_TIMINGS: Columns[TimingRow] = {
    "method": lambda row: row.subject.method,
    "title": lambda row: row.subject.title,
    "deviations": lambda row: "; ".join(row.subject.deviations),
    "device": lambda row: row.device.name,
    "part": lambda row: row.device.part,
    "power_limit_w": lambda row: row.device.power_limit_watts or None,
    "threads": lambda row: row.device.threads or None,
    "machine": lambda row: row.device.machine,
    "host_cpu": lambda row: row.newest.machine.cpu,
    "protocol": lambda row: row.setting.protocol,
    "mode": lambda row: row.setting.mode,
    "batch": lambda row: row.setting.batch,
    "height": lambda row: row.setting.input_size[0],
    "width": lambda row: row.setting.input_size[1],
    "precision": lambda row: row.setting.precision,
    "backend": lambda row: row.setting.backend,
    "cache": lambda row: row.setting.cache,
    "region": lambda row: row.setting.region,
    "clock": lambda row: row.setting.clock,
    "latency_ms": lambda row: row.latency.value,
    "latency_low_ms": lambda row: row.latency.low,
    "latency_high_ms": lambda row: row.latency.high,
    "median_ms": lambda row: row.median.value,
    "median_low_ms": lambda row: row.median.low,
    "median_high_ms": lambda row: row.median.high,
    "cpu_ms": lambda row: row.cpu.value,
    "p90_bound_ms": lambda row: row.bound("p90_bound"),
    "p99_bound_ms": lambda row: row.bound("p99_bound"),
    "images_per_s": lambda row: row.throughput.value,
    "images_per_s_low": lambda row: row.throughput.low,
    "images_per_s_high": lambda row: row.throughput.high,
    "cold_start_ms": lambda row: max(record.sampling.cold_start_ms for record in row.records),
    "processes": lambda row: len(row.records),
    "passes": lambda row: sum(record.sampling.count for record in row.records),
    "parameters": lambda row: row.subject.parameters,
    "memory_bank": lambda row: row.subject.memory_bank,
    "flops": lambda row: row.subject.flops,
    "search_flops": lambda row: row.subject.search_flops,
    "reserved_bytes": lambda row: row.reserved_bytes,
    "energy_mj_per_image": lambda row: row.energy.value if row.energy else None,
    "verdict": lambda row: row.verdict.status,
    "reasons": lambda row: "; ".join(f"{reason.check}: {reason.text}" for reason in row.verdict.reasons),
    "code": lambda row: row.code,
    "created": lambda row: row.newest.created.isoformat(),
    "command": lambda row: row.newest.command,
    "fit_key": lambda row: row.subject.fit_key,
}


def metrics_csv(selection: Selection) -> str:
    """Every metric of every cell."""
    return write_csv(
        _METRICS,
        (
            _Metric(result.variant, result.record, name)
            for result in selection.results
            for name in sorted(result.record.metrics)
        ),
    )


def means_csv(selection: Selection) -> str:
    """Every metric of every row of the tables."""
    lines = []
    for part in selection.parts:
        metrics = sorted(available_metrics(part.results))
        rows = aggregate(part.results, metrics)
        lines += [_Mean(part.collection, row, metric) for row in rows for metric in metrics]
    return write_csv(_MEANS, lines)


def cells_csv(selection: Selection) -> str:
    """Every cell, those that failed too."""
    return write_csv(_CELLS, selection.results)


def definitions_csv(selection: Selection) -> str | None:
    """Every cell's maps under every definition; ``None`` if no cell has any.

    Raises:
        results.errors.ResultError: A definitions file is damaged.
    """
    lines = [_Definition(result, value) for result in selection.results for value in definitions_of(result)]
    return write_csv(_DEFINITIONS, lines) if lines else None


def thresholds_csv(selection: Selection) -> str | None:
    """Every threshold of every cell; ``None`` if no cell has any."""
    lines = [_Threshold(result, threshold) for result in selection.results for threshold in result.record.thresholds]
    return write_csv(_THRESHOLDS, lines) if lines else None


def timing_csv(timings: TimingSelection) -> str | None:
    """Every row that was timed; ``None`` if none was."""
    rows = [*timings.rows, *timings.invalid]
    return write_csv(_TIMINGS, rows) if rows else None


def write_csv(columns: Columns[Line], lines: Iterable[Line]) -> str:
    """Write a head and a row per line; text that a spreadsheet would take for a formula is protected."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for line in lines:
        values = [value(line) for value in columns.values()]
        # Asked here first, as a run may have millions of values: a call each would take longer than all else.
        writer.writerow(
            [protect(value) if isinstance(value, str) and value.startswith(_FORMULA) else value for value in values]
        )
    return buffer.getvalue()


def protect(text: str) -> str:
    """Keep a spreadsheet from taking text for a formula: such text gets a leading apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _implementation(result: Result) -> list[tuple[str, str]]:
    return sorted(result.record.implementation.items())
