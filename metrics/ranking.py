"""What every threshold metric is computed from: how many normals reach the score of each positive."""

from dataclasses import dataclass
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

    @property
    def true_positives(self) -> Counts:
        """(k,) how many positives have that score or a higher one."""
        return np.cumsum(self.positives[::-1])[::-1]

    def unit_areas(self, limit: float) -> NDArray[np.float64]:
        """Return what one positive of each score adds to the normalised area under the ROC curve up to ``limit``.

        A positive whose score ties with normals enters the curve together with them, on a straight line; a line
        that crosses the limit counts up to it. The value lies in [0, 1]: 1 when no normal reaches the score.
        """
        allowed = limit * self.normals
        at_least = self.at_least.astype(np.float64)
        above = self.above.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = (allowed - above) ** 2 / (2 * (at_least - above))
        area = np.where(at_least <= allowed, allowed - (at_least + above) / 2, crossing)
        return np.where(above < allowed, area, 0.0) / allowed

    def au_roc(self, limit: float = 1.0) -> float:
        """Area under the ROC curve up to the false-positive rate ``limit``, divided by ``limit``."""
        return float(np.sum(self.unit_areas(limit) * self.positives) / self.positives.sum())

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
        MetricError: a limit is not in (0, 1].
    """
    limits = tuple(dict.fromkeys(float(limit) for limit in fpr_limits))
    for limit in limits:
        if not 0 < limit <= 1:
            raise MetricError(f"an FPR limit must lie in (0, 1], is {limit}")
    return limits
