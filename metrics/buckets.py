"""Tells the pixels whose rank a table knows from the few that have to be compared one by one.

Only the rank of a pixel among the thresholds matters. The axis of scores is cut into buckets, finest where many
pixels and many thresholds lie together. A pixel in a bucket that holds no threshold lies above the same thresholds
as every other pixel of that bucket, so it is enough to count it. The others are kept for exact comparison.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.inputs import FloatArray

CELLS = 4096
"""Equal parts of the range of keys; each is cut into its own power of two of buckets."""
MOST_BUCKETS = 1 << 19
"""Their counters, 2 MiB, of which smooth maps use a small part at a time."""
LARGEST_KEPT_SHARE = 0.6
"""With more pixels to compare anyway, looking each up in the table first costs more than it saves."""
SAMPLE = 4096
"""Scores per image that show where its pixels lie."""
INFINITY = 0x7F800000
"""Its key, and its bits."""
OCCUPIED = -(2**31)
"""Counters of buckets with a threshold start here, so that their sign tells them from the others."""


@dataclass(frozen=True, eq=False)
class Axis:
    """Scores, rounded to float32, in ascending buckets. Wider types lose nothing: ties are compared exactly.

    Attributes:
        low: Key of the lowest score; all scores below it share the first bucket.
        high: Key of the highest score, the counterpart.
        shift: Binary digits of a key within a cell.
        cells: (CELLS,) the number of a cell's first bucket and, in the last ``kernels.FINE_BITS`` bits, how many binary
            digits of a key within the cell do not matter.
        buckets: How many there are.
    """

    low: np.int32
    high: np.int32
    shift: np.uint32
    cells: NDArray[np.uint32]
    buckets: int

    def locate(self, scores: FloatArray) -> NDArray[np.uint32]:
        """Return the bucket of each score (n,)."""
        from metrics import kernels

        buckets = np.empty(scores.size, np.uint32)
        kernels.locate(_bits(scores), self.low, self.high, self.shift, self.cells, buckets)
        return buckets


@dataclass(frozen=True, eq=False)
class BucketTable:
    """Buckets, and which of them hold a threshold.

    Attributes:
        axis: The buckets.
        bucket_of: (k,) the bucket of each threshold.
    """

    axis: Axis
    bucket_of: NDArray[np.uint32]

    def counters(self) -> NDArray[np.int32]:
        """Return a counter for each bucket: 0, or ``OCCUPIED`` if a threshold lies in it."""
        counters = np.zeros(self.axis.buckets, np.int32)
        counters[self.bucket_of] = OCCUPIED
        return counters

    def below_thresholds(self, counters: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return (k,) how many of the pixels counted in buckets without a threshold lie below each threshold."""
        return np.asarray(np.cumsum(np.maximum(counters, 0), dtype=np.int64)[self.bucket_of])


def sample_of(scores: FloatArray) -> FloatArray:
    """Return some ``SAMPLE`` of the scores of a map, evenly spread; an odd step reaches every column."""
    return scores.reshape(-1)[:: scores.size // SAMPLE | 1]


def make_table(thresholds: FloatArray, sample: FloatArray) -> BucketTable | None:
    """Choose buckets for pixels distributed as the sample, or ``None`` if a table would not pay.

    With p pixels and t thresholds in a cell of n buckets, about p·t/n pixels share a bucket with a threshold. For a
    given number of buckets in all, the sum over the cells is least with n proportional to the root of p·t.

    Args:
        thresholds: (k,) distinct, ascending.
        sample: (s,) scores of pixels.
    """
    from metrics import kernels

    if thresholds.size == 0 or sample.size == 0:
        return None
    # The bits of a NaN reach beyond those of infinity, to the end of the range; the second pass refuses its image.
    low = max(min(_key(thresholds[0]), _key(sample.min())), -INFINITY) - 1
    high = min(max(_key(thresholds[-1]), _key(sample.max())), INFINITY) + 1
    shift = max(0, (high - low).bit_length() - (CELLS.bit_length() - 1))

    def axis(digits: NDArray[np.int64]) -> Axis:
        ends = np.cumsum(1 << digits)
        cells = (ends - (1 << digits)) << kernels.FINE_BITS | shift - digits
        return Axis(np.int32(low), np.int32(high), np.uint32(shift), cells.astype(np.uint32), int(ends[-1]))

    by_cell = axis(np.zeros(CELLS, np.int64))
    within, sampled = (np.bincount(by_cell.locate(scores), minlength=CELLS) for scores in (thresholds, sample))
    weight = np.sqrt(within * sampled.astype(np.float64))
    wanted = weight / max(weight.sum(), 1) * min(MOST_BUCKETS, 4 * thresholds.size)
    chosen = axis(np.log2(wanted.clip(1, 1 << shift)).astype(np.int64))
    table = BucketTable(chosen, chosen.locate(thresholds))
    kept = np.mean(table.counters()[chosen.locate(sample)] < 0)
    return table if kept <= LARGEST_KEPT_SHARE else None


def _key(score: Any) -> int:
    from metrics import kernels

    return int(kernels.key_of(_bits(np.array([score]))[0]))


def _bits(scores: FloatArray) -> NDArray[np.int32]:
    with np.errstate(over="ignore"):
        return scores.astype(np.float32, copy=False).view(np.int32)
