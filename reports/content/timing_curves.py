"""How times grow: throughput with the batch size, latency with the size of images and of memory banks."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports.content.tables import UNDEFINED, Column, Field, Marks, Note, Table
from reports.content.timings import SIZE_OPTION, TimingSelection, estimate_text, row_label, row_names, setting_texts
from results.timing_rows import Device, Estimate, TimingRow

GROWTH = 0.05
"""A throughput that no larger batch exceeds by more than this share no longer grows."""
_CURVE = 3
"""Batch sizes that make a curve; every protocol has two."""


@dataclass(frozen=True)
class Curve:
    """One method's times.

    Attributes:
        label: The method, and its setting where that does not go without saying.
        points: By rising abscissa.
        marked: Abscissa from which it no longer grows; ``None`` if it is not known to stop.
        suspect: Whether a verdict is SUSPECT.
    """

    label: str
    points: tuple[tuple[float, Estimate], ...]
    marked: float | None
    suspect: bool


@dataclass(frozen=True)
class CurvePlot:
    """Curves of one device and protocol.

    Attributes:
        title: Device and what is shown.
        abscissa: Title of the horizontal axis.
        ordinate: Title of the vertical axis.
        curves: One per method and setting.
        notes: What the figure must say.
    """

    title: str
    abscissa: str
    ordinate: str
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]


def curve_plots(timings: TimingSelection, device: Device) -> dict[str, CurvePlot]:
    """The plots that one device has points for, at least two per curve, by the end of their file's stem."""
    rows = [row for row in timings.rows if row.device == device and row.setting.mode != "line"]
    plots: dict[str, CurvePlot] = {}
    for protocol, mode in sorted({(row.setting.protocol, row.setting.mode) for row in rows}):
        own = [row for row in rows if (row.setting.protocol, row.setting.mode) == (protocol, mode)]
        words = f"{timings.title(device)}, protocol {protocol}" + ("" if mode == "request" else f", {mode}")
        plots[f"batch-{protocol}-{mode}"] = CurvePlot(
            f"{words}: throughput by batch size",
            "Images per pass",
            "Images/s",
            _curves(own, _but_batch, lambda row: row.setting.batch, lambda row: row.throughput, least=_CURVE),
            (f"Ringed: from this batch size on no larger one is more than {100 * GROWTH:g} % faster.",),
        )
        single = [row for row in own if row.setting.batch == 1 and mode != "stream"]
        plots[f"size-{protocol}-{mode}"] = CurvePlot(
            f"{words}: latency by size of the images",
            "Side of an image in pixels: root of height × width",
            "Latency in ms",
            _curves(single, _but_size, lambda row: math.prod(row.setting.input_size) ** 0.5, _latency),
            (),
        )
        plots[f"bank-{protocol}-{mode}"] = CurvePlot(
            f"{words}: latency by size of the memory bank",
            "Values in the memory bank",
            "Latency in ms",
            _curves(single, _but_bank, lambda row: row.subject.memory_bank, _latency),
            (),
        )
    return {stem: plot for stem, plot in plots.items() if plot.curves}


def batch_tables(timings: TimingSelection, device: Device) -> dict[str, Table]:
    """Throughput of one device by batch size, where a row has several, by the end of their file's stem."""
    rows = [row for row in timings.rows if row.device == device and row.setting.mode != "line"]
    tables = {}
    for protocol, mode in sorted({(row.setting.protocol, row.setting.mode) for row in rows}):
        own = [row for row in rows if (row.setting.protocol, row.setting.mode) == (protocol, mode)]
        batches = sorted({row.setting.batch for row in own})
        if len(batches) >= _CURVE:
            words = f"{timings.title(device)}, protocol {protocol}" + ("" if mode == "request" else f", {mode}")
            tables[f"{protocol}-{mode}"] = _batch_table(f"{words}: throughput by batch size", own, batches)
    return tables


def _batch_table(title: str, rows: Sequence[TimingRow], batches: Sequence[int]) -> Table:
    settings, marks, body = setting_texts(rows), Marks(), []
    for series in _series(rows, _but_batch):
        by_batch = {row.setting.batch: row.throughput for row in series}
        values = [Field(estimate_text(by_batch[batch]) if batch in by_batch else UNDEFINED) for batch in batches]
        limit = grows_until([(batch, by_batch[batch]) for batch in batches if batch in by_batch])
        end = Field(UNDEFINED if limit is None else f"{limit:g}")
        body.append((row_label(series[0], marks), Field(settings[series[0].identity]), *values, end))
    columns = (
        Column("Method"),
        Column("Setting"),
        *(Column(f"Batch {batch}", numeric=True) for batch in batches),
        Column("Grows until", numeric=True),
    )
    note = Note(
        "",
        f"Images/s. Grows until: the batch size from which no larger one is more than {100 * GROWTH:g} % faster; "
        f"{UNDEFINED}: it still grows at the largest that was timed.",
    )
    return Table(title, columns, tuple(body), (note, *marks.notes()))


def grows_until(points: Sequence[tuple[float, Estimate]]) -> float | None:
    """The first abscissa whose value no later one exceeds by over 5 %; ``None`` if that is only the last one."""
    for index, (place, estimate) in enumerate(points[:-1]):
        if all(later.value <= (1 + GROWTH) * estimate.value for _, later in points[index + 1 :]):
            return place
    return None


def _curves(
    rows: Sequence[TimingRow],
    alike: Callable[[TimingRow], str],
    abscissa: Callable[[TimingRow], float],
    ordinate: Callable[[TimingRow], Estimate],
    *,
    least: int = 2,
) -> tuple[Curve, ...]:
    """A curve per set of rows that differ in nothing but the abscissa, if they have enough values of it."""
    curves = []
    series = [own for own in _series(rows, alike) if len({abscissa(row) for row in own}) >= least]
    names = row_names([own[0] for own in series])
    for own in series:
        # Of rows that share an abscissa too, such as another scenario's, the first stands for all.
        points = dict(sorted({abscissa(row): ordinate(row) for row in reversed(own)}.items()))
        marked = grows_until(list(points.items()))
        suspect = any(row.verdict.status == "SUSPECT" for row in own)
        curves.append(Curve(names[own[0].identity], tuple(points.items()), marked, suspect))
    return tuple(curves)


def _series(rows: Sequence[TimingRow], alike: Callable[[TimingRow], str]) -> list[list[TimingRow]]:
    series: dict[str, list[TimingRow]] = {}
    for row in rows:
        series.setdefault(alike(row), []).append(row)
    return list(series.values())


def _latency(row: TimingRow) -> Estimate:
    return row.latency


def _but_batch(row: TimingRow) -> str:
    return row.identity


def _but_bank(row: TimingRow) -> str:
    return json.dumps([*_detector(row, row.subject.config), row.setting.model_dump(mode="json")], sort_keys=True)


def _but_size(row: TimingRow) -> str:
    """What rows of different image sizes share; the bank grows with the image, so that it is not asked for."""
    config = {name: value for name, value in row.subject.config.items() if name != SIZE_OPTION}
    setting = row.setting.model_dump(mode="json", exclude={"input_size"})
    return json.dumps([*_detector(row, config), row.subject.scenario, setting], sort_keys=True)


def _detector(row: TimingRow, config: object) -> list[object]:
    return [row.subject.method, config, [weights.model_dump() for weights in row.subject.weights]]
