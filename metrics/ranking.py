"""What every threshold metric is computed from: how many normals reach the score of each positive."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.errors import MetricError

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """Positives (defect pixels, anomalous images) ranked among the normals.

    Attributes:
        thresholds: (k,) distinct scores of positives, ascending.
        positives: (k,) how many positives have exactly that score.
        at_least: (k,) how many normals have that score or a higher one.
        above: (k,) how many normals have a higher score.
        normals: how many normals there are.
    """

    thresholds: NDArray[np.floating[Any]]
    positives: Counts
    at_least: Counts
    above: Counts
    normals: int

    @cached_property
    def true_positives(self) -> Counts:
        """(k,) how many positives have that score or a higher one."""
        return np.cumsum(self.positives[::-1])[::-1]

    def first_within(self, limit: float) -> int:
        """Return the first threshold whose false-positive rate does not exceed ``limit`` (k if none)."""
        # 0.29 × 100 is 29, in spite of 28.999999999999996.
        allowed = limit * self.normals * (1 + 4 * np.finfo(np.float64).eps)
        within = np.searchsorted(self.at_least[::-1], allowed, side="right")
        return int(self.thresholds.size - within)

    def unit_areas(self, limit: float) -> tuple[int, NDArray[np.float64]]:
        """Return what one positive of each score adds to the normalised area under the ROC curve up to ``limit``.

        A positive whose score ties with normals enters the curve together with them, on a straight line; of the
        one line that may cross the limit, the part before it counts.

        Returns:
            The first threshold that adds anything, and the areas (in [0, 1]) from it on.
        """
        allowed = limit * self.normals
        first = self.first_within(limit)
        crosses = first > 0 and self.above[first - 1] < allowed
        start = first - 1 if crosses else first
        if allowed == 0:
            return start, np.zeros(self.thresholds.size - start)
        areas = 1 - (self.at_least[start:] + self.above[start:]) / (2 * allowed)
        if crosses:
            reached = allowed - self.above[start]
            areas[0] = reached**2 / (2 * allowed * (self.at_least[start] - self.above[start]))
        return start, areas

    def au_roc(self, limit: float = 1.0) -> float:
        """Area under the ROC curve up to the false-positive rate ``limit``, divided by ``limit``."""
        start, areas = self.unit_areas(limit)
        return float(np.sum(areas * self.positives[start:]) / self.positives.sum())

    def average_precision(self) -> float:
        """Sum over descending thresholds of precision × the step in recall (no interpolation)."""
        found = self.true_positives
        precision = found / (found + self.at_least)
        return float(np.sum(precision * self.positives) / self.positives.sum())

    def f1_max(self) -> float:
        """Return the highest F1 over all thresholds; it is always reached at the score of a positive."""
        found = self.true_positives
        return float(np.max(2 * found / (found + self.at_least + found[0])))


def check_limits(fpr_limits: tuple[float, ...]) -> tuple[float, ...]:
    """Return the limits as distinct floats.

    Raises:
        MetricError: there is none, or one is not in (0, 1].
    """
    limits = tuple(dict.fromkeys(float(limit) for limit in fpr_limits))
    if not limits:
        raise MetricError("no FPR limit given")
    for limit in limits:
        if not 0 < limit <= 1:
            raise MetricError(f"an FPR limit must lie in (0, 1], is {limit}")
    return limits
