"""Compiling ahead of time, where the first evaluation is to take no longer than the next."""

import numpy as np

from metrics.maps import UpsampledMaps
from metrics.pixels import evaluate_pixels
from metrics.saturated import Defect, evaluate_saturated

SIZE, UPSAMPLED = 32, (48, 48)


def warm_up() -> None:
    """Compile what evaluations of float32 maps need, or load it from the cache: some 5 s once, then half a second."""
    maps = UpsampledMaps(np.random.default_rng(0).random((2, SIZE, SIZE), np.float32), [UPSAMPLED] * 2)
    mask = np.zeros(UPSAMPLED)
    evaluate_pixels(maps, [None, mask], threads=1)  # nothing to compare with: no table of buckets
    mask[8:24, 8:24] = 1
    evaluate_pixels(maps, [None, mask], threads=1)
    evaluate_saturated(maps, [[], [Defect(mask, 100)]], threads=1)
