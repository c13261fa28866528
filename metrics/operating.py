"""What a threshold costs: missed anomalous images and false alarms, image by image.

Everywhere, an image is called anomalous if its score exceeds the threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.errors import MetricError
from metrics.images import check_scores


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold chosen on normal validation images does on the test images.

    Attributes:
        declared_fpr: the false-positive rate that was asked for.
        threshold: the lowest score of a validation image that at most this share of them exceeds.
        validation_fpr: the share of the validation images that do exceed it.
        realised_fpr: the share of the normal test images that exceed it; NaN without any.
        false_negative_rate: the share of the anomalous test images that do not exceed it; NaN without any.
    """

    declared_fpr: float
    threshold: float
    validation_fpr: float
    realised_fpr: float
    false_negative_rate: float


def operating_points(
    validation_scores: Sequence[float] | NDArray[Any],
    scores: Sequence[float] | NDArray[Any],
    labels: Sequence[Any] | NDArray[Any],
    fprs: Sequence[float] = (0.0, 0.01, 0.05),
    *,
    names: Sequence[str] | None = None,
) -> tuple[OperatingPoint, ...]:
    """Choose thresholds on normal validation images, as one must in practice, and apply them to the test images.

    Args:
        validation_scores: (v,) of normal images that are neither trained on nor tested on; at least one. Fewer
            than 1 / FPR of them cannot resolve that rate: the threshold is then their maximum.
        scores: (n,) of the test images.
        labels: (n,) true = anomalous.
        fprs: false-positive rates to declare, each in [0, 1).
        names: a name for each test image, used in messages.

    Raises:
        MetricError: no validation score, a score that is not finite, or a rate out of range.
    """
    validation, _ = check_scores(validation_scores, np.zeros(len(validation_scores)), noun="validation image")
    values, anomalous = check_scores(scores, labels, names)
    points = []
    for fpr in fprs:
        threshold = _threshold(validation, fpr, "validation image")
        points.append(
            OperatingPoint(
                float(fpr),
                threshold,
                _share(validation > threshold),
                _share(values[~anomalous] > threshold),
                _share(values[anomalous] <= threshold),
            )
        )
    return tuple(points)


def false_negative_rates(
    scores: Sequence[float] | NDArray[Any],
    labels: Sequence[Any] | NDArray[Any],
    fprs: Sequence[float] = (0.0, 0.01, 0.05),
    *,
    names: Sequence[str] | None = None,
) -> dict[float, float]:
    """Return the lowest false-negative rate at which at most a share ``fpr`` of the normal images is called anomalous.

    The threshold is the best one for these very images, so this is a bound for ``operating_points``. "PB" of
    pre-sorting: the bad images missed when n % of the good ones may be sorted out.

    Raises:
        MetricError: no normal image, a score that is not finite, or a rate out of range.
    """
    values, anomalous = check_scores(scores, labels, names)
    return {
        float(fpr): _share(values[anomalous] <= _threshold(values[~anomalous], fpr, "normal image")) for fpr in fprs
    }


def false_positive_rates(
    scores: Sequence[float] | NDArray[Any],
    labels: Sequence[Any] | NDArray[Any],
    fnrs: Sequence[float] = (0.0, 0.01, 0.05),
    *,
    names: Sequence[str] | None = None,
) -> dict[float, float]:
    """Return the lowest false-positive rate at which at most a share ``fnr`` of the anomalous images is missed.

    One minus it is "PG" of pre-sorting: the good images recognised when n % of the bad ones may slip through.

    Raises:
        MetricError: no anomalous image, a score that is not finite, or a rate out of range.
    """
    values, anomalous = check_scores(scores, labels, names)
    # Missing as few as allowed means calling everything anomalous that scores at least the next one.
    return {
        float(fnr): _share(values[~anomalous] >= -_threshold(-values[anomalous], fnr, "anomalous image"))
        for fnr in fnrs
    }


def _threshold(scores: NDArray[np.float64], share: float, noun: str) -> float:
    """Return the lowest of the scores that at most ``share`` of them exceed."""
    if scores.size == 0:
        raise MetricError(f"no threshold can be chosen: there is no {noun}")
    if not 0 <= share < 1:
        raise MetricError(f"a rate must lie in [0, 1), is {share}")
    allowed = int(share * scores.size + 1e-9)  # 0.07 × 100 is 7, in spite of 7.000000000000001
    return float(np.sort(scores)[scores.size - 1 - allowed])


def _share(truth: NDArray[np.bool_]) -> float:
    return float(truth.mean()) if truth.size else float("nan")
