"""Tells the pixels whose rank a table knows from the few that have to be compared one by one.

Only the rank of a pixel among the thresholds matters. The axis of scores is cut into buckets, finest where many
pixels and many thresholds lie together. A pixel in a bucket that holds no threshold lies above the same thresholds
as every other pixel of that bucket, so it is enough to count it. The others are kept for exact comparison.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics.inputs import FloatArray

CELLS = 4096
"""Equal parts of the range of keys; each is cut into its own power of two of buckets."""
MOST_BUCKETS = 1 << 18
"""Their counters, 1 MiB, fit in a core's own cache."""
LARGEST_KEPT_SHARE = 0.6
"""With more pixels to compare anyway, looking each up in the table first costs more than it saves."""
SAMPLE = 4096
"""Scores per image that show where its pixels lie."""
FINE_BITS = 5
"""Bits of an entry of ``BucketTable.cells`` that say how far to shift; a float32 key has at most 20 to shift."""
OCCUPIED = -(2**31)
"""Counters of buckets with a threshold start here, so that their sign tells them from the others."""


@dataclass(frozen=True)
class BucketTable:
    """Buckets that ascend with the score, rounded to float32; wider types lose nothing, ties are compared exactly.

    Attributes:
        low: Key of the lowest score; all scores below it share the first bucket.
        high: Key of the highest score, the counterpart.
        shift: Binary digits of a key within a cell.
        cells: uint32 (CELLS,) the number of a cell's first bucket and, in the last ``FINE_BITS`` bits, how many
            binary digits of a key within the cell do not matter.
        buckets: How many there are.
        bucket_of: (k,) the bucket of each threshold.
    """

    low: int
    high: int
    shift: int
    cells: NDArray[np.uint32]
    buckets: int
    bucket_of: NDArray[np.int64]

    def counters(self) -> NDArray[np.int32]:
        """Return a counter for each bucket: 0, or ``OCCUPIED`` if a threshold lies in it."""
        counters = np.zeros(self.buckets, np.int32)
        counters[self.bucket_of] = OCCUPIED
        return counters

    def below_thresholds(self, counters: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return (k,) how many of the pixels counted in buckets without a threshold lie below each threshold."""
        return np.asarray(np.cumsum(np.where(counters < 0, 0, counters), dtype=np.int64)[self.bucket_of])


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
    if thresholds.size == 0 or sample.size == 0:
        return None
    keys, sampled = _keys(thresholds), _keys(sample)
    low = int(min(keys[0], sampled.min())) - 1
    high = int(max(keys[-1], sampled.max())) + 1
    shift = max(0, (high - low).bit_length() - (CELLS.bit_length() - 1))
    within = np.bincount((keys - low) >> shift, minlength=CELLS)
    weight = np.sqrt(within * np.bincount((sampled - low) >> shift, minlength=CELLS).astype(np.float64))
    wanted = weight / max(weight.sum(), 1) * min(MOST_BUCKETS, 4 * thresholds.size)
    digits = np.log2(wanted.clip(1, 1 << shift)).astype(np.int64)
    ends = np.cumsum(1 << digits)
    cells = (ends - (1 << digits)) << FINE_BITS | shift - digits

    def bucket(keys: NDArray[np.int64]) -> NDArray[np.int64]:
        cell = cells[(keys - low) >> shift]
        rest = (keys - low) & ((1 << shift) - 1)
        return np.asarray((cell >> FINE_BITS) + (rest >> (cell & ((1 << FINE_BITS) - 1))))

    table = BucketTable(low, high, shift, cells.astype(np.uint32), int(ends[-1]), bucket(keys))
    kept = np.mean(table.counters()[bucket(sampled)] < 0)
    return table if kept <= LARGEST_KEPT_SHARE else None


def _keys(scores: FloatArray) -> NDArray[np.int64]:
    """Return integers that order as the scores, rounded to float32, do; both signs of zero are 0."""
    with np.errstate(over="ignore"):
        bits = scores.astype(np.float32).view(np.int32).astype(np.int64)
    magnitude = bits & 0x7FFFFFFF
    return np.where(bits < 0, -magnitude, magnitude)
