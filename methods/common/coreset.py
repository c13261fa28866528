"""Greedy k-centre coreset (Roth et al., CVPR 2022, Algorithm 1), exact and lazy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


def greedy_coreset(
    points: Tensor, count: int, starts: Tensor, progress: Callable[[int], object] = lambda picked: None
) -> Tensor:
    """Pick points one by one, each time the one farthest from all picked so far.

    The picks are those of the naive loop, which compares every point with every pick (the lowest index among equally
    far points, too). But a point's distance to the picks only falls while picks are added, so a distance computed
    earlier is an upper bound: a point whose bound is not the largest cannot be next and need not be compared yet.
    On image patches this saves four fifths of the comparisons, and the rest run over the picks, which fit the cache,
    instead of over all points, which do not.

    Args:
        points: float32 (N, D) on the CPU.
        count: How many to pick, 1 to N.
        starts: Indices (S,). A point's initial distance is the mean distance to these, as in the official code.
        progress: Called now and then with the number of points picked.

    Returns:
        int64 (count,): indices of the picked points in the order in which they were picked.
    """
    distances = torch.cdist(points, points[starts], compute_mode="donot_use_mm_for_euclid_dist").mean(1).square()
    bounds: Floats = distances.numpy()
    compared = np.zeros(len(points), np.int64)
    # An array in descending order is a heap.
    heap: Integers = np.argsort(-bounds, kind="stable")
    picks = np.empty(count, np.int64)
    picked = np.empty((count, points.shape[1]), np.float32)
    step = max(1, count // 100)
    for start in range(0, count, step):
        stop = min(start + step, count)
        _pick(points.numpy(), bounds, compared, heap, picks, picked, start, stop)
        progress(stop)
    return torch.from_numpy(picks)


def _compile(function: Any) -> Any:
    # Sums may be reordered, which lets them use vector instructions; comparisons stay strict.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract"}}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package folder nor the user's cache folder can be written
        return njit(**options)(function)


@_compile
def _pick(
    points: Floats,
    bounds: Floats,
    compared: Integers,
    heap: Integers,
    picks: Integers,
    picked: Floats,
    start: int,
    stop: int,
) -> None:
    """Pick number ``start`` to ``stop``.

    ``bounds[i]`` is the squared distance of point i to the first ``compared[i]`` picks; ``heap`` holds all points,
    the one with the largest bound on top.
    """
    for pick in range(start, stop):
        while compared[heap[0]] < pick:
            point = heap[0]
            runner_up = bounds[heap[_larger_child(heap, bounds, 0)]]
            # Once another point is farther, this one need not be known more exactly.
            while compared[point] < pick and bounds[point] >= runner_up:
                distance = _squared_distance(points[point], picked[compared[point]])
                bounds[point] = min(bounds[point], distance)
                compared[point] += 1
            _sift_down(heap, bounds)
        picks[pick] = heap[0]
        picked[pick] = points[heap[0]]


@_compile
def _squared_distance(a: Floats, b: Floats) -> np.float32:
    total = np.float32(0)
    for i in range(len(a)):
        difference = a[i] - b[i]
        total += difference * difference
    return total


@_compile
def _sift_down(heap: Integers, bounds: Floats) -> None:
    """Restore the heap after the bound of its top fell."""
    top = heap[0]
    position = 0
    while 2 * position + 1 < len(heap):
        child = _larger_child(heap, bounds, position)
        if not _before(heap[child], top, bounds):
            break
        heap[position] = heap[child]
        position = child
    heap[position] = top


@_compile
def _larger_child(heap: Integers, bounds: Floats, position: int) -> int:
    """Position of the child that comes first; ``position`` itself where there is none."""
    left = 2 * position + 1
    if left >= len(heap):
        return position
    if left + 1 < len(heap) and _before(heap[left + 1], heap[left], bounds):
        return left + 1
    return left


@_compile
def _before(a: int, b: int, bounds: Floats) -> bool:
    return bounds[a] > bounds[b] or (bounds[a] == bounds[b] and a < b)
