"""Reads and checks the caller's maps and masks, and shares the images out to threads."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.errors import MetricError
from metrics.maps import Subset

MOST_THREADS = 8  # unless the caller wants more: each holds a block of scores and a count per threshold
FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class MapReader:
    """Reads the anomaly maps one by one.

    Attributes:
        maps: n float arrays (h_i, w_i), possibly made when read.
        names: a name for each image of the whole set, used in messages, or None.
        numbers: for each map its image's number in the whole set; None if the maps are the whole set.
    """

    maps: Sequence[NDArray[Any]] | NDArray[Any]
    names: Sequence[str] | None = None
    numbers: Sequence[int] | None = None

    def subset(self, positions: Sequence[int]) -> "MapReader":
        """Return a reader of the images at these positions; messages keep their numbers and names."""
        numbers = [self.number(position) for position in positions]
        return MapReader(Subset(self.maps, positions), self.names, numbers)

    def label(self, index: int) -> str:
        """Return how messages call image ``index``."""
        number = self.number(index)
        return f"image {number}" if self.names is None else f"image {number} ({self.names[number]})"

    def number(self, index: int) -> int:
        """Return the place of image ``index`` in the whole set."""
        return index if self.numbers is None else self.numbers[index]

    def read(self, index: int, shape: tuple[int, ...] | None = None) -> FloatArray:
        """Return the contiguous map of image ``index`` as float32 (float16 widened, exactly) or float64.

        Raises:
            MetricError: not a two-dimensional float map, or not of ``shape``. Whether all scores are finite shows
                when they are ranked.
        """
        scores = np.asarray(self.maps[index])
        if scores.dtype not in (np.float16, np.float32, np.float64) or scores.ndim != 2 or scores.size == 0:
            raise MetricError(
                f"{self.label(index)}: an anomaly map must be a non-empty (height, width) array of float16, "
                f"float32 or float64, is {scores.dtype} of shape {scores.shape}"
            )
        if shape is not None and scores.shape != shape:
            raise MetricError(f"{self.label(index)}: the map has shape {scores.shape}, its mask {shape}")
        return np.ascontiguousarray(scores, dtype=np.float64 if scores.dtype == np.float64 else np.float32)

    def refuse(self, index: int) -> None:
        """Raise the error of image ``index``, which has a score that is not finite.

        Raises:
            MetricError: says where the score is.
        """
        scores = self.read(index)
        row, column = np.argwhere(~np.isfinite(scores))[0]
        raise MetricError(
            f"{self.label(index)}: the score at row {row}, column {column} is {scores[row, column]}; "
            "scores must be finite"
        )


def read_mask(mask: Any, label: str) -> NDArray[np.bool_]:
    """Return a mask of any number type as booleans, true where it is nonzero.

    Raises:
        MetricError: the mask is not two-dimensional.
    """
    array = np.asarray(mask)
    if array.ndim != 2:
        raise MetricError(f"{label}: a mask must be a (height, width) array, has shape {array.shape}")
    return array if array.dtype == np.bool_ else np.asarray(array != 0)


def check_lengths(reader: MapReader, other: Sequence[Any] | NDArray[Any], noun: str) -> None:
    """Raise MetricError unless there are as many maps (and names) as ``other``."""
    for sequence, called in ((reader.maps, "maps"), (other, noun)):
        if not hasattr(sequence, "__len__"):
            raise MetricError(f"the {called} are read more than once: give a sequence, not {type(sequence).__name__}")
    if len(reader.maps) != len(other):
        raise MetricError(f"{len(reader.maps)} maps, but {len(other)} {noun}")
    if reader.names is not None and len(reader.names) != len(other):
        raise MetricError(f"{len(other)} images, but {len(reader.names)} names")


def worker_count(threads: int | None) -> int:
    """Return ``threads``, or the number of cores this process may use, at most MOST_THREADS."""
    if threads is not None:
        if threads < 1:
            raise MetricError(f"threads must be at least 1, is {threads}")
        return threads
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_THREADS)


def share_out(count: int, workers: Sequence[Callable[[int], None]]) -> None:
    """Call for each of ``range(count)`` one of the workers, every worker from a thread of its own.

    Images are handed out in ascending order, so the error of the first bad image is the one that is raised,
    whatever the number of threads.
    """
    pending = iter(range(count))
    lock = threading.Lock()
    errors: list[tuple[int, Exception]] = []

    def run(worker: Callable[[int], None]) -> None:
        while True:
            with lock:
                index = None if errors else next(pending, None)
            if index is None:
                return
            try:
                worker(index)
            except Exception as error:  # raised below, in the caller's thread
                with lock:
                    errors.append((index, error))

    if len(workers) == 1:
        run(workers[0])
    else:
        with ThreadPoolExecutor(len(workers)) as pool:
            list(pool.map(run, workers))
    if errors:
        raise min(errors, key=lambda error: error[0])[1]
