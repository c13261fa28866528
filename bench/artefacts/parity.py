"""How much two ways to run the same fitted detector differ, on test images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from bench.artefacts.description import Parity


def compare(
    plain: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], anomalous: Sequence[bool], names: Sequence[str]
) -> Parity:
    """Compare maps and scores.

    Args:
        plain: Maps (N, h, w) and scores (N,) of the plain module.
        other: Those of the artefact.
        anomalous: Labels of the images, both kinds among them.
        names: Of the images.
    """
    maps, scores = (tensor.double().numpy() for tensor in plain)
    other_maps, other_scores = (tensor.double().numpy() for tensor in other)
    threshold = best_threshold(scores, np.array(anomalous))
    flipped = np.flatnonzero((scores >= threshold) != (other_scores >= threshold))
    return Parity(
        images=len(names),
        map_error=float(np.abs(maps - other_maps).max() / (np.ptp(maps) or 1.0)),
        score_error=float(np.abs(scores - other_scores).max() / (np.ptp(scores) or 1.0)),
        threshold=float(threshold),
        flipped=[names[int(index)] for index in flipped],
    )


def best_threshold(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> float:
    """The threshold at which F1 is highest, of equals the highest one.

    It lies in the middle between two scores, so that rounding alone flips no image.

    Args:
        scores: (N,).
        anomalous: (N,), with an anomalous image among them.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(anomalous[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + anomalous.sum())
    last = np.append(ranked[1:] != ranked[:-1], True)  # images of equal score are called alike
    best = int(np.argmax(np.where(last, f1, -1)))
    below = ranked[best + 1] if best + 1 < len(ranked) else ranked[best]
    return float((ranked[best] + below) / 2)
