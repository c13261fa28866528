"""What a run will cost before it starts: time, memory, disk, what is there already and what is missing."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cell import new_detector
from bench.cells import Cell
from bench.datasets.images import decoded_bytes, is_decoded
from bench.forecast import BASES, Basis, Estimate
from bench.models import MODEL_FILE
from bench.plan import cell_document
from bench.preparation import PreparedRun
from bench.run_folder import RUNS, PlannedCell
from results.arrays import MAPS_FILE, NORMAL_MAPS_FILE


@dataclass(frozen=True)
class MethodOutlook:
    """What the cells of one method that are to run are expected to take.

    Attributes:
        method: Name in the registry.
        cells: How many.
        steps: Optimiser steps in all.
        estimates: Of those cells of which anything is known.
        unavailable: Why they will fail; empty if nothing is missing.
    """

    method: str
    cells: int
    steps: int
    estimates: tuple[Estimate, ...]
    unavailable: str

    @property
    def is_known(self) -> bool:
        """Whether there is an estimate of every cell."""
        return len(self.estimates) == self.cells

    @property
    def seconds(self) -> tuple[float, float, float]:
        """The estimate of all cells together, the least and the greatest that records speak for."""
        return (
            sum(one.seconds for one in self.estimates),
            sum(one.least for one in self.estimates),
            sum(one.greatest for one in self.estimates),
        )

    @property
    def basis(self) -> Basis | None:
        """What the least sure of the estimates is made from."""
        return max((one.basis for one in self.estimates), key=BASES.index, default=None)

    @property
    def peak_memory(self) -> int | None:
        """Bytes of main memory of its largest cell; ``None`` where nobody counted."""
        return max((one.peak_memory for one in self.estimates if one.peak_memory is not None), default=None)


@dataclass(frozen=True)
class Outlook:
    """What a run is expected to take.

    Attributes:
        methods: By method.
        elapsed: Seconds until its end on its workers, of the cells that are known.
        workers: How many cells run at a time.
        device: What they run on.
        images: Bytes of decoded images in the cache, all that the run needs.
        images_cached: Those of them that are there.
        results: Bytes that the run folder will grow by, of the cells that are known.
    """

    methods: tuple[MethodOutlook, ...]
    elapsed: float
    workers: int
    device: str
    images: int
    images_cached: int
    results: int

    @property
    def unknown(self) -> list[str]:
        """Methods of which too little has run to say what they take."""
        return [method.method for method in self.methods if not method.is_known and not method.unavailable]


def look_ahead(prepared: PreparedRun) -> Outlook:
    """Estimate what a run will take, from its plan and from the records of earlier ones."""
    cells = [cell for cell in prepared.plan.cells if cell.key in prepared.due]
    forecast = prepared.forecast(*RUNS.glob("*"))
    estimates = {cell.key: forecast.estimate(PlannedCell.of(cell).task) for cell in cells}
    known = [estimate for cell in cells if not cell.entrant.unavailable and (estimate := estimates[cell.key])]
    images, cached = _images(cells, prepared)
    # Elsewhere it is not known how many cells run at a time, unless the user says so.
    workers = len(prepared.slots) or prepared.options.workers or prepared.options.jobs or 1
    return Outlook(
        tuple(_of_method(name, cells, estimates) for name in dict.fromkeys(cell.entrant.name for cell in cells)),
        _elapsed([estimate.seconds for estimate in known], workers),
        workers,
        prepared.device,
        images,
        cached,
        sum(_kept(estimate, prepared) for estimate in known),
    )


def outlook_document(prepared: PreparedRun) -> dict[str, object]:
    """What would be done and what it will take, for programs: plain values that JSON can hold."""
    plan, outlook = prepared.plan, look_ahead(prepared)
    return {
        "run_folder": str(prepared.store.root),
        "photographs": plan.photographs,
        "passed_over": list(plan.passed_over),
        "cells": [cell_document(cell, prepared.records[cell.key], prepared.due.get(cell.key)) for cell in plan.cells],
        "workers": outlook.workers,
        "device": outlook.device,
        "elapsed_seconds": outlook.elapsed,
        "unknown": outlook.unknown,
        "cache_bytes": outlook.images,
        "cached_bytes": outlook.images_cached,
        "result_bytes": outlook.results,
        "methods": [_method_document(method) for method in outlook.methods],
    }


def _method_document(method: MethodOutlook) -> dict[str, object]:
    seconds, least, greatest = method.seconds
    return {
        "method": method.method,
        "cells": method.cells,
        "training_steps": method.steps,
        "seconds": seconds if method.is_known else None,
        "least": least if method.is_known else None,
        "greatest": greatest if method.is_known else None,
        "basis": method.basis,
        "peak_memory": method.peak_memory,
        "unavailable": method.unavailable or None,
    }


def _of_method(name: str, cells: Iterable[Cell], estimates: Mapping[str, Estimate | None]) -> MethodOutlook:
    own = [cell for cell in cells if cell.entrant.name == name]
    return MethodOutlook(
        name,
        len(own),
        sum(cell.training_steps or 0 for cell in own),
        tuple(estimate for cell in own if (estimate := estimates[cell.key]) is not None),
        own[0].entrant.unavailable,
    )


def _elapsed(seconds: Sequence[float], workers: int) -> float:
    """When the last of some workers is done that take cells as they come, the longest first."""
    ends = [0.0] * max(1, workers)
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + one)
    return max(ends)


def _images(cells: Iterable[Cell], prepared: PreparedRun) -> tuple[int, int]:
    """Bytes of decoded images, all that are needed and those that are in the cache."""
    needed: dict[tuple[tuple[Path, ...], tuple[int, int]], None] = {}
    for cell in cells:
        size, scenario = new_detector(cell).input_size, cell.scenario
        for paths in (scenario.train, scenario.validation, tuple(image.path for image in scenario.test)):
            if paths:
                needed[paths, size] = None
    if not prepared.cache.enabled:
        return 0, 0
    sizes = {(paths, size): decoded_bytes(len(paths), size) for paths, size in needed}
    return sum(sizes.values()), sum(
        count for (paths, size), count in sizes.items() if is_decoded(paths, size, prepared.cache)
    )


def _kept(estimate: Estimate, prepared: PreparedRun) -> int:
    """Bytes that a cell leaves in the run folder, with what is to be kept of it."""
    optional = {MAPS_FILE: prepared.options.keep_maps, NORMAL_MAPS_FILE: prepared.options.keep_maps}
    optional[MODEL_FILE] = prepared.options.keep_models
    return sum(count for name, count in estimate.files.items() if optional.get(name, True))
