"""The few loops that numpy cannot express, compiled by numba and free of the interpreter lock.

Imported on first use only, because importing numba takes longer than everything else in this package.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
FINE_BITS = 5
"""Bits of an entry of ``Axis.cells`` that say how far to shift; a float32 key has at most 20 to shift."""
FINE_MASK = (1 << FINE_BITS) - 1


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` without the interpreter lock, cached on disk wherever that is possible."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package folder nor the user's cache folder can be written
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


@compiled
def copy_finite(source: Array, target: Array) -> bool:
    """Copy (n,) values, widened if need be, and tell whether none of them is NaN or infinite."""
    bad = False  # a boolean, not a count: only so is the loop vectorised
    for index in range(source.size):
        target[index] = source[index]
        bad |= not (abs(source[index]) < np.inf)
    return not bad


@compiled
def key_of(bits: Any) -> Any:
    """Return an int32 that orders as the float32 of these bits does; both signs of zero are 0."""
    magnitude = np.int32(bits & np.int32(0x7FFFFFFF))
    sign = np.int32(bits >> np.int32(31))
    return np.int32(np.int32(magnitude ^ sign) - sign)


@compiled
def _place(bits: Any, low: Any, high: Any) -> Any:
    """Return how far a key lies above ``low``, clipped to 0 and ``high - low``, as uint32."""
    return np.uint32(np.int32(min(max(key_of(bits), low), high)) - low)


@compiled
def _bucket(place: Any, shift: Any, cells: Array) -> Any:
    """Return the bucket of a place: that of its cell, and of the place within the cell (``Axis.cells``)."""
    cell = cells[place >> shift]
    rest = np.uint32(place & np.uint32((np.uint32(1) << shift) - np.uint32(1)))
    return np.uint32(cell >> np.uint32(FINE_BITS)) + np.uint32(rest >> np.uint32(cell & np.uint32(FINE_MASK)))


@compiled
def locate(bits: Array, low: Any, high: Any, shift: Any, cells: Array, buckets: Array) -> None:
    """Fill ``buckets`` (n,) with the bucket of each float32 whose ``bits`` (n,) int32 are given."""
    for index in range(bits.size):
        buckets[index] = _bucket(_place(bits[index], low, high), shift, cells)


@compiled
def sift(
    scores: Array, low: Any, high: Any, shift: Any, cells: Array, counters: Array, kept: Array
) -> tuple[int, bool]:
    """Count each score in its bucket, and keep those that share it with a threshold: negative counters.

    Args:
        scores: (n,) of any float type.
        low: ``Axis.low``, as int32.
        high: ``Axis.high``, as int32.
        shift: ``Axis.shift``, as uint32.
        cells: ``Axis.cells``.
        counters: (buckets,) int32, changed.
        kept: (n,) at least; its front is filled.

    Returns:
        How many scores are kept, and whether all are finite.
    """
    count = 0
    finite = True
    single = np.empty(2048, np.float32)
    bits = single.view(np.int32)
    places = np.empty(2048, np.uint32)
    for start in range(0, scores.size, 2048):
        size = min(2048, scores.size - start)
        finite &= copy_finite(scores[start : start + size], single)
        for index in range(size):  # vectorised, as long as it does nothing but arithmetic
            places[index] = _place(bits[index], low, high)
        for index in range(size):
            bucket = _bucket(places[index], shift, cells)
            before = counters[bucket]
            counters[bucket] = before + 1
            kept[count] = scores[start + index]  # overwritten by the next one unless counted
            count += before < 0
    return count, finite


@compiled
def pack(bits: Array, groups: Array, packed: Array) -> None:
    """Fill ``packed`` (n,) with integers that order as the float32 of these ``bits`` do, and hold the group."""
    for index in range(bits.size):
        packed[index] = (np.int64(key_of(bits[index])) << 32) | np.int64(groups[index])


@compiled
def unpack(packed: Array, bits: Array, groups: Array) -> None:
    """Undo :func:`pack`; the sign of a zero is lost."""
    for index in range(packed.size):
        key = packed[index] >> 32
        bits[index] = key if key >= 0 else -key - 2147483648
        groups[index] = packed[index] & 0xFFFFFFFF


@compiled
def sum_by_region(regions: Array, threshold_of: Array, units: Array, first: int, sums: Array) -> None:
    """Add to the sum of each pixel's region what a pixel found at its threshold adds.

    Args:
        regions: (p,) of pixels in ascending order of their score.
        threshold_of: (p,) ascending.
        units: From threshold ``first`` on.
        first: Pixels found at lower thresholds add nothing.
        sums: (r,), changed.
    """
    for pixel in range(np.searchsorted(threshold_of, first), regions.size):
        sums[regions[pixel]] += units[threshold_of[pixel] - first]


@compiled
def merge(block: Array, thresholds: Array, below: Array, up_to: Array) -> None:
    """Add to ``below[k]`` and ``up_to[k]`` how many of ``block`` lie below, and not above, ``thresholds[k]``.

    ``block`` (n,) and ``thresholds`` (k,) ascend, thresholds strictly. Both are walked once, side by side.
    """
    position = 0
    for k in range(thresholds.size):
        threshold = thresholds[k]
        while position < block.size and block[position] < threshold:
            position += 1
        below[k] += position
        while position < block.size and block[position] == threshold:
            position += 1
        up_to[k] += position


@compiled
def _root(parent: Array, run: Any) -> Any:
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run


@compiled
def _find_runs(pixels: Array, width: int) -> Array:
    """Return row, first column and end column of each horizontal run of ascending flat pixel positions."""
    runs = np.empty((pixels.size, 3), np.int32)
    count = 0
    end = -1
    for pixel in pixels:
        row = pixel // width
        column = pixel - row * width
        if pixel != end or column == 0:
            runs[count, 0] = row
            runs[count, 1] = column
            count += 1
        runs[count - 1, 2] = column + 1
        end = pixel + 1
    return runs[:count]


@compiled
def _join_runs(runs: Array) -> Array:
    """Return for each run a run of the same region: diagonal contact joins (8-connectivity)."""
    count = runs.shape[0]
    parent = np.arange(count)
    above = 0  # first run of the previous row that may still touch
    for run in range(count):
        row, start, end = runs[run, 0], runs[run, 1], runs[run, 2]
        while above < run and (runs[above, 0] < row - 1 or (runs[above, 0] == row - 1 and runs[above, 2] < start)):
            above += 1
        touching = above
        while touching < run and runs[touching, 0] == row - 1 and runs[touching, 1] <= end:
            first, second = _root(parent, touching), _root(parent, run)
            # The smaller number wins, so that a region is named by its first run in raster order.
            parent[max(first, second)] = min(first, second)
            touching += 1
    return parent


@compiled
def label_regions(pixels: Array, width: int) -> tuple[Array, int]:
    """Label the 8-connected regions of a mask.

    Args:
        pixels: (p,) flat positions of the defect pixels, ascending.
        width: of the mask.

    Returns:
        The region of each pixel (p,) int32, numbered in raster order of the regions' first pixels, and how many
        regions there are.
    """
    runs = _find_runs(pixels, width)
    parent = _join_runs(runs)
    number = np.empty(runs.shape[0], np.int32)
    region = np.empty(pixels.size, np.int32)
    regions = 0
    position = 0
    for run in range(runs.shape[0]):
        root = _root(parent, run)
        if root == run:
            number[run] = regions
            regions += 1
        number[run] = number[root]
        for _ in range(runs[run, 1], runs[run, 2]):
            region[position] = number[run]
            position += 1
    return region, regions


@compiled
def _taps(length: int, target: int, like: Array) -> tuple[Array, Array, Array]:
    """Return the two source positions of each target position and the weight of the second.

    The coordinates must round as those of torch do, or steep maps differ by more than 1e-6: the scale in the type
    of ``like``, then one fused multiply-add, which for float32 is what float64 arithmetic rounded once gives.
    """
    real = like.dtype.type
    scale = real(length) / real(target)
    first = np.empty(target, np.int64)
    second = np.empty(target, np.int64)
    weight = np.empty(target, like.dtype)
    for position in range(target):
        source = max(real(np.float64(scale) * (position + 0.5) - 0.5), real(0))
        low = min(int(source), length - 1)
        first[position] = low
        second[position] = min(low + 1, length - 1)
        weight[position] = min(max(source - real(low), real(0)), real(1))
    return first, second, weight


@compiled
def upsample(source: Array, out: Array) -> None:
    """Fill ``out`` (H, W) with the bilinear interpolation of ``source`` (h, w), pixel centres aligned by area."""
    one = out.dtype.type(1)
    top, bottom, down = _taps(source.shape[0], out.shape[0], out)
    left, right, across = _taps(source.shape[1], out.shape[1], out)
    wide = np.empty((2, out.shape[1]), out.dtype)  # two source rows, stretched
    held = np.full(2, -1)
    for row in range(out.shape[0]):
        for source_row in (top[row], bottom[row]):
            slot = source_row % 2
            if held[slot] != source_row:
                held[slot] = source_row
                for column in range(out.shape[1]):
                    weight = across[column]
                    wide[slot, column] = (one - weight) * source[source_row, left[column]] + (
                        weight * source[source_row, right[column]]
                    )
        upper, lower, weight = wide[top[row] % 2], wide[bottom[row] % 2], down[row]
        for column in range(out.shape[1]):
            out[row, column] = (one - weight) * upper[column] + weight * lower[column]
