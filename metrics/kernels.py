"""The few loops that numpy cannot express, compiled by numba and free of the interpreter lock.

Imported on first use only, because importing numba takes longer than everything else in this package.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` without the interpreter lock, cached on disk wherever that is possible."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # neither the package folder nor the user's cache folder can be written
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


@compiled
def all_finite(values: Array) -> bool:
    """Tell whether no element of the (n,) array is NaN or infinite."""
    bad = 0
    for value in values:
        bad |= not abs(value) < np.inf
    return bad == 0


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
def _find_runs(mask: Array) -> Array:
    """Return row, first column and end column of each horizontal run of nonzero pixels, in raster order."""
    height, width = mask.shape
    capacity = 256
    runs = np.empty((capacity, 3), np.int32)
    count = 0
    for row in range(height):
        occupied = np.uint8(0)
        for column in range(width):  # vectorised: most rows of most masks are empty
            occupied |= mask[row, column]
        if occupied == 0:
            continue
        column = 0
        while column < width:
            if mask[row, column] == 0:
                column += 1
                continue
            start = column
            while column < width and mask[row, column] != 0:
                column += 1
            if count == capacity:
                grown = np.empty((2 * capacity, 3), np.int32)
                grown[:capacity] = runs
                runs = grown
                capacity *= 2
            runs[count, 0] = row
            runs[count, 1] = start
            runs[count, 2] = column
            count += 1
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
def gather_regions(mask: Array, scores: Array) -> tuple[Array, Array, Array]:
    """Label the 8-connected regions of a mask and collect the scores under them.

    Args:
        mask: (h, w) uint8, nonzero is defect.
        scores: (h, w) float.

    Returns:
        The scores of the defect pixels (p,), the region of each (p,) int32, and the region areas (r,) int64;
        regions are numbered in raster order of their first pixel.
    """
    runs = _find_runs(mask)
    parent = _join_runs(runs)
    number = np.empty(runs.shape[0], np.int32)
    areas = np.zeros(runs.shape[0], np.int64)
    regions = 0
    pixels = 0
    for run in range(runs.shape[0]):
        root = _root(parent, run)
        if root == run:
            number[run] = regions
            regions += 1
        number[run] = number[root]
        length = runs[run, 2] - runs[run, 1]
        areas[number[run]] += length
        pixels += length
    found = np.empty(pixels, scores.dtype)
    region = np.empty(pixels, np.int32)
    position = 0
    for run in range(runs.shape[0]):
        row = runs[run, 0]
        for column in range(runs[run, 1], runs[run, 2]):
            found[position] = scores[row, column]
            region[position] = number[run]
            position += 1
    return found, region, areas[:regions].copy()


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
