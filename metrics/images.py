"""Image-level metrics: does a score separate anomalous from normal images?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.errors import MetricError
from metrics.ranking import Ranking


@dataclass(frozen=True)
class ImageMetrics:
    """How well image scores separate anomalous from normal images; in [0, 1], or NaN with a reason.

    Attributes:
        au_roc: probability that an anomalous image scores higher than a normal one, ties counting half.
        average_precision: sum over descending thresholds of precision × the step in recall.
        f1_max: highest F1 over all thresholds.
        undefined: the reason for each value that is NaN, by the name it has in ``named()``.
    """

    au_roc: float
    average_precision: float
    f1_max: float
    undefined: Mapping[str, str] = field(default_factory=dict)

    def named(self) -> dict[str, float]:
        """Return all values under their names in records and tables."""
        return {
            "image_au_roc": self.au_roc,
            "image_average_precision": self.average_precision,
            "image_f1_max": self.f1_max,
        }


def check_scores(
    scores: Sequence[float] | NDArray[Any],
    labels: Sequence[Any] | NDArray[Any],
    names: Sequence[str] | None = None,
    noun: str = "image",
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores as float64 and labels as booleans.

    Raises:
        MetricError: lengths differ, or a score is NaN or infinite; names the image.
    """
    values = np.asarray(scores, dtype=np.float64)
    anomalous = np.asarray(labels).astype(np.bool_)
    if values.ndim != 1 or values.shape != anomalous.shape:
        raise MetricError(f"scores of shape {values.shape}, but labels of shape {anomalous.shape}")
    for index in np.flatnonzero(~np.isfinite(values))[:1]:
        label = f"{noun} {index}" if names is None else f"{noun} {index} ({names[index]})"
        raise MetricError(f"{label}: the image score is {values[index]}; scores must be finite")
    return values, anomalous


def rank_images(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> Ranking:
    """Rank anomalous images among normal ones."""
    thresholds, positives = np.unique(scores[anomalous], return_counts=True)
    normal = np.sort(scores[~anomalous])
    at_least = normal.size - np.searchsorted(normal, thresholds, side="left")
    above = normal.size - np.searchsorted(normal, thresholds, side="right")
    return Ranking(thresholds, positives, at_least, above, normal.size)


def evaluate_images(
    scores: Sequence[float] | NDArray[Any],
    labels: Sequence[Any] | NDArray[Any],
    *,
    names: Sequence[str] | None = None,
) -> ImageMetrics:
    """Evaluate image scores.

    Args:
        scores: (n,) finite, higher = more anomalous.
        labels: (n,) truth value True (or nonzero) = anomalous, from the collection and not from the masks: an
            anomalous image may have an empty mask.
        names: a name for each image, used in messages.

    Raises:
        MetricError: lengths differ, or a score is not finite; names the image.
    """
    values, anomalous = check_scores(scores, labels, names)
    if anomalous.all() or not anomalous.any():
        nan = float("nan")
        reason = "no image is normal" if anomalous.any() else "no image is anomalous"
        undefined = ImageMetrics(nan, nan, nan)
        return ImageMetrics(nan, nan, nan, dict.fromkeys(undefined.named(), reason))
    ranking = rank_images(values, anomalous)
    return ImageMetrics(ranking.au_roc(), ranking.average_precision(), ranking.f1_max())
