"""Accuracy under changed light: the metrics of the test images of one condition, each alone."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.thresholding import Values
from metrics import Subset, evaluate_images, evaluate_pixels

REGULAR = "regular"
"""The condition that training images are taken under."""
CHANGED = "changed"
"""What all other conditions together are called."""
FPR_LIMIT = 0.05


def evaluate_conditions(
    conditions: Sequence[str],
    maps: Sequence[NDArray[Any]],
    scores: NDArray[np.float64],
    anomalous: Sequence[bool],
    masks: Sequence[NDArray[np.bool_] | None] | None,
    *,
    names: Sequence[str],
    threads: int,
) -> Values:
    """Evaluate the test images of each condition, normal and anomalous, as if there were no others.

    Args:
        conditions: Of each image; empty where the collection has none.
        maps: At full resolution, made when they are read.
        scores: float64 (n,) of the images.
        anomalous: Which images are.
        masks: The defect pixels of each image, ``None`` for a normal one; ``None`` if AU-PRO is not defined here.
        names: Of the images, used in messages.
        threads: Images processed at a time.

    Returns:
        ``regular/image_au_roc``, ``regular/au_pro@0.05`` and so on; ``changed/…`` are of all images that were not
        taken under the regular condition. Nothing if there is but one condition.

    Raises:
        MetricError: The maps allow no evaluation; names the image.
    """
    values: dict[str, float] = {}
    undefined: dict[str, str] = {}
    for part, places in _parts(conditions).items():
        images = evaluate_images(scores[places], [anomalous[place] for place in places])
        found, why = {"image_au_roc": images.au_roc}, dict(images.undefined)
        if masks is not None:
            pixels = evaluate_pixels(
                Subset(maps, places),
                Subset(masks, places),
                (FPR_LIMIT,),
                quartile_limits=(),
                names=[names[place] for place in places],
                threads=threads,
            )
            found[f"au_pro@{FPR_LIMIT}"] = pixels.au_pro[FPR_LIMIT]
            why |= pixels.undefined
        values |= {f"{part}/{name}": value for name, value in found.items()}
        undefined |= {f"{part}/{name}": why[name] for name, value in found.items() if math.isnan(value)}
    return Values(values, undefined)


def _parts(conditions: Sequence[str]) -> dict[str, list[int]]:
    """The places of the images of each condition, the regular one first, and of all others together."""
    named = sorted({condition for condition in conditions if condition}, key=lambda name: (name != REGULAR, name))
    if len(named) < 2:
        return {}
    parts = {name: [place for place, own in enumerate(conditions) if own == name] for name in named}
    if REGULAR in parts and CHANGED not in parts and len(named) > 2:
        parts[CHANGED] = [place for place, own in enumerate(conditions) if own not in ("", REGULAR)]
    return parts
