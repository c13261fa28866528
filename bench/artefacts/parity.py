"""How much two ways to run the same fitted detector differ, on test images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.datasets.masks import GroundTruth
from bench.scoring import AnomalyMaps, score
from methods.errors import MethodError
from results.parity import Parity

METRICS = ("image_au_roc", "au_pro@0.3", "au_spro@0.05")
"""Those that are compared, as far as they are defined."""


def compare_on(plain: AnomalyMaps, other: AnomalyMaps, truth: GroundTruth, threads: int) -> Parity:
    """Compare maps and scores of all test images of a scenario, and what they are worth.

    Args:
        plain: Of the plain module.
        other: Of what runs it otherwise.
        truth: Ground truth of these images.
        threads: Images processed at a time.

    Raises:
        DataError: A mask is missing or damaged.
        MethodError: The maps differ in size.
        MetricError: The maps allow no evaluation.
    """
    scenario = truth.scenario
    parity = compare(plain, other, [image.anomalous for image in scenario.test], scenario.names)
    values = [score(maps, truth, threads).named() for maps in (plain, other)]
    pairs = {name: (values[0].get(name), values[1].get(name)) for name in METRICS}
    defined = {name: (one, two) for name, (one, two) in pairs.items() if one is not None and two is not None}
    return parity.model_copy(update={"metrics": defined})


def compare(plain: AnomalyMaps, other: AnomalyMaps, anomalous: Sequence[bool], names: Sequence[str]) -> Parity:
    """Compare maps and scores.

    Args:
        plain: Of the plain module.
        other: Of what runs it otherwise.
        anomalous: Labels of the images.
        names: Of the images.

    Raises:
        MethodError: The maps differ in size.
    """
    for name, one, two in zip(names, plain.maps, other.maps, strict=True):
        if one.shape != two.shape:
            raise MethodError(f"the map of {name} has {two.shape} values, that of the plain module {one.shape}")
    pairs = list(zip(plain.maps, other.maps, strict=True))
    lowest, highest = min(one.min() for one, _ in pairs), max(one.max() for one, _ in pairs)
    map_error = max(float(np.abs(one.astype(np.float64) - two).max()) for one, two in pairs)
    threshold = best_threshold(plain.scores, np.array(anomalous))
    flipped = np.flatnonzero((plain.scores >= threshold) != (other.scores >= threshold))
    return Parity(
        images=len(names),
        map_error=map_error / (float(highest) - float(lowest) or 1.0),
        score_error=float(np.abs(plain.scores - other.scores).max() / (np.ptp(plain.scores) or 1.0)),
        threshold=threshold,
        flipped=[names[int(index)] for index in flipped],
    )


def best_threshold(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> float:
    """The threshold at which F1 is highest, of equals the highest one.

    It lies in the middle between two scores, or below all of them, so that rounding alone flips no image.

    Args:
        scores: (N,).
        anomalous: (N,), with an anomalous image among them.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(anomalous[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + anomalous.sum())
    last = np.append(ranked[1:] != ranked[:-1], True)  # images of equal score are called alike
    best = int(np.argmax(np.where(last, f1, -1)))
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[-1] - (np.ptp(ranked) or 1.0)
    return float((ranked[best] + below) / 2)
