"""Curves for plots: few points, and exactly the area of the curve through all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.ranking import Ranking

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A curve to draw; both coordinates in [0, 1], ``x`` ascending.

    Attributes:
        x: (n,)
        y: (n,)
    """

    x: Floats
    y: Floats


@dataclass(frozen=True)
class Curves:
    """The threshold curves of one evaluation, thinned.

    Attributes:
        pro: mean overlap of the regions over FPR.
        roc: true-positive rate of the pixels over FPR.
        precision_recall: precision over recall of the pixels; a step function: a value holds from the previous
            recall to its own, and the sum of precision × step in recall is the average precision.
    """

    pro: Curve
    roc: Curve
    precision_recall: Curve


def thin_rising(ranking: Ranking, weights: NDArray[Any], limits: Sequence[float], points: int) -> Curve:
    """Return a non-decreasing curve over FPR in at most ``points`` points plus two per limit.

    Points of the full curve, evenly spaced along it, are kept. Between two of them one more point is placed
    within the rectangle that they span, where it keeps the area under the curve; so the area up to the end, and
    up to each limit, is that of the full curve.

    Args:
        ranking: positives among normals.
        weights: (k,) how much the curve rises at each threshold; they sum to 1.
        limits: values of FPR that become points of the curve.
        points: at least 3.
    """
    at_least, above, normals = ranking.at_least, ranking.above, ranking.normals
    height = np.minimum(np.cumsum(weights[::-1])[::-1], 1.0)  # the weights sum to one, but for rounding
    # Area left of the point of threshold k: every positive above it counts from where it enters, half the width of
    # its own tie excepted.
    entered = np.cumsum((weights * ((at_least + above) / (2 * normals)))[::-1])[::-1]
    along = at_least / normals + height
    wanted = np.linspace(along[0], 0, max(points // 2, 1))
    keep = np.unique(np.searchsorted(-along, -wanted).clip(0, along.size - 1))[::-1]
    x, y = at_least[keep] / normals, height[keep]
    area = x * y - entered[keep]
    anchors = [(0.0, 0.0, 0.0), (1.0, float(height[0]), float(height[0] - entered[0]))]
    anchors += [_at_limit(ranking, weights, height, limit) for limit in limits if limit < 1]
    extra = np.array(anchors)
    x, y, area = (np.concatenate((part, extra[:, i])) for i, part in enumerate((x, y, area)))
    order = np.lexsort((y, x))
    return _with_apexes(x[order], y[order], area[order])


def _at_limit(ranking: Ranking, weights: NDArray[Any], height: Floats, limit: float) -> tuple[float, float, float]:
    """Return x, y and the area to the left of the point of the full curve at FPR ``limit``."""
    first, units = ranking.unit_areas(limit)
    within = ranking.first_within(limit)
    y = float(height[within]) if within < height.size else 0.0
    if first < within:  # a tie crosses the limit
        reached = limit * ranking.normals - ranking.above[first]
        y += float(weights[first] * reached / (ranking.at_least[first] - ranking.above[first]))
    return limit, y, float(np.sum(units * weights[first:])) * limit


def _with_apexes(x: Floats, y: Floats, area: Floats) -> Curve:
    """Put between each two points one that gives the piece between them its area."""
    width, rise = np.diff(x), np.diff(y)
    surplus = np.diff(area) - width * (y[1:] + y[:-1]) / 2
    half = width * rise / 2  # the triangle on the chord with its apex in a corner of the rectangle
    share = np.divide(surplus, half, out=np.zeros_like(half), where=half > 0).clip(-1, 1)
    # From the middle of the chord towards the upper left corner, or (negative) the lower right one.
    apex_x = ((x[1:] + x[:-1]) / 2 - share * width / 2).clip(x[:-1], x[1:])
    apex_y = ((y[1:] + y[:-1]) / 2 + share * rise / 2).clip(y[:-1], y[1:])
    needed = half > 0
    position = np.flatnonzero(needed) + 1
    return Curve(np.insert(x, position, apex_x[needed]), np.insert(y, position, apex_y[needed]))


def thin_precision_recall(ranking: Ranking, points: int) -> Curve:
    """Return precision over recall in at most ``points`` steps, each the mean precision over its recalls."""
    found = ranking.true_positives[::-1]
    positives = ranking.positives[::-1]
    precision = found / (found + ranking.at_least[::-1])
    wanted = np.linspace(0, found[-1], points + 1)[1:]
    ends = np.unique(np.searchsorted(found, wanted).clip(0, found.size - 1))
    starts = np.concatenate(([0], ends[:-1] + 1))
    sums = np.add.reduceat(precision * positives, starts)
    return Curve(found[ends] / found[-1], sums / np.add.reduceat(positives, starts))
