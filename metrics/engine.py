"""Ranks defect pixels among all normal pixels in two passes over the images, in bounded memory.

Every metric of this package needs only, for each distinct score of a defect pixel, how many normal pixels reach
it. The first pass collects the scores of the (few) defect pixels. The second reads every map once more and counts
its pixels in buckets of scores; the few that share a bucket with a defect pixel are gathered in a block, which is
sorted and merged with the sorted defect scores. No score of a normal pixel outlives its block. Whole maps are
counted; what the defect pixels themselves contributed is subtracted at the end, so the second pass needs no mask.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.buckets import BucketTable, make_table
from metrics.inputs import FloatArray, MapReader, share_out
from metrics.ranking import Ranking

SMALLEST_BLOCK = 1 << 18
LARGEST_BLOCK = 1 << 24
MOST_LOOKED_UP = 1 << 30
"""Pixels after which the 32-bit counters of the buckets are emptied."""


def sort_with(scores: FloatArray, groups: NDArray[np.int64]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return scores in ascending order and the group of each, a number below 2^32; the sign of a zero may be lost."""
    if scores.dtype != np.float32:
        order = np.argsort(scores)
        return scores[order], groups[order]
    from metrics import kernels

    # Sorting whole numbers is several times as fast as sorting an order and following it.
    packed = np.empty(scores.size, np.int64)
    kernels.pack(scores.view(np.int32), groups, packed)
    packed.sort()
    ordered, ordered_groups = np.empty_like(scores), np.empty(scores.size, np.int64)
    kernels.unpack(packed, ordered.view(np.int32), ordered_groups)
    return ordered, ordered_groups


def distinct(scores: FloatArray) -> tuple[FloatArray, NDArray[np.intp]]:
    """Return the distinct values of ascending scores (both signs of zero are one), and the value of each score."""
    is_new = np.empty(scores.size, np.bool_)
    is_new[:1] = True
    np.not_equal(scores[1:], scores[:-1], out=is_new[1:])
    return scores[is_new], np.cumsum(is_new) - 1


def rank(
    reader: MapReader,
    shapes: Sequence[tuple[int, ...] | None],
    thresholds: FloatArray,
    positives: NDArray[np.int64],
    defect_scores: FloatArray,
    sample: FloatArray,
    threads: int,
    left_out: int = 0,
) -> Ranking:
    """Count the normal pixels at and above each threshold: the second pass.

    Args:
        reader: gives the maps.
        shapes: the shape that each map must have, where known.
        thresholds: (k,) distinct, ascending.
        positives: (k,) how many positives have exactly that score.
        defect_scores: scores of the pixels that are not normal, ascending.
        sample: scores of some pixels, which decide how fast the others are ranked; the result does not depend on it.
        threads: how many images are read and sorted at a time.
        left_out: how many pixels that are not normal are missing in ``defect_scores``, because they lie below every
            threshold.

    Raises:
        MetricError: a map is unusable; the message names it.
    """
    from metrics import kernels

    table = make_table(thresholds, sample)
    counters = [_Counter(reader, shapes, thresholds, table) for _ in range(threads)]
    share_out(len(shapes), [counter.add_image for counter in counters])
    share_out(threads, [lambda index: counters[index].flush()] * threads)
    normals = sum(counter.pixels for counter in counters) - defect_scores.size - left_out
    at_least, above = np.zeros((2, thresholds.size), np.int64)
    kernels.merge(defect_scores, thresholds, at_least, above)
    for counter in counters:
        at_least -= counter.below
        above -= counter.up_to
    at_least += normals + left_out
    above += normals + left_out
    return Ranking(thresholds, positives, at_least, above, normals)


class _Counter:
    """Counts the pixels below and up to each threshold, for the images that one thread is given."""

    def __init__(
        self,
        reader: MapReader,
        shapes: Sequence[tuple[int, ...] | None],
        thresholds: FloatArray,
        table: BucketTable | None,
    ) -> None:
        self.below = np.zeros(thresholds.size, np.int64)
        self.up_to = np.zeros(thresholds.size, np.int64)
        self.pixels = 0
        self._reader = reader
        self._shapes = shapes
        self._thresholds = thresholds
        self._table = table
        self._counters = None if table is None else table.counters()
        self._looked_up = 0
        # Merging walks all thresholds once per block: blocks several times as long keep that cheap, and shorter ones
        # do where the table leaves few pixels to merge.
        times = 8 if table is None else 2
        size = max(SMALLEST_BLOCK, min(times * thresholds.size, LARGEST_BLOCK), thresholds.size)
        self._block: NDArray[Any] = np.empty(size, thresholds.dtype)
        self._filled = 0

    def add_image(self, index: int) -> None:
        if not self.add(self._reader.read(index, self._shapes[index]).reshape(-1)):
            self._reader.refuse(index)

    def add(self, scores: FloatArray) -> bool:
        """Count the scores; return whether they all are finite."""
        if scores.dtype.itemsize > self._block.dtype.itemsize:
            self._sort_block()
            self._block = np.empty(self._block.size, scores.dtype)
        position, finite = 0, True
        while position < scores.size and finite:
            if self._filled == self._block.size:
                self._sort_block()
            part = scores[position : position + self._block.size - self._filled]
            finite = self._add_part(part)
            position += part.size
        self.pixels += scores.size
        return finite

    def _add_part(self, scores: FloatArray) -> bool:
        """Count scores, no more of them than the block has room for."""
        from metrics import kernels

        if self._table is None:
            finite = kernels.copy_finite(scores, self._block[self._filled :])
            self._filled += scores.size
            return bool(finite)
        axis, self._looked_up = self._table.axis, self._looked_up + scores.size
        if self._looked_up > MOST_LOOKED_UP:
            self._collect_counters()
            self._looked_up = scores.size
        free = self._block[self._filled :]
        kept, finite = kernels.sift(scores, axis.low, axis.high, axis.shift, axis.cells, self._counters, free)
        self._filled += kept
        return bool(finite)

    def flush(self) -> None:
        """Bring ``below`` and ``up_to`` up to date."""
        self._sort_block()
        self._collect_counters()

    def _collect_counters(self) -> None:
        if self._table is not None and self._counters is not None:
            below = self._table.below_thresholds(self._counters)
            self.below += below
            self.up_to += below
            self._counters = self._table.counters()

    def _sort_block(self) -> None:
        from metrics import kernels

        block = self._block[: self._filled]
        block.sort()
        kernels.merge(block, self._thresholds, self.below, self.up_to)
        self._filled = 0
