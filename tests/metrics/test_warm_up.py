"""After the warm-up, evaluations of float32 maps compile nothing more."""

import numba
import numpy as np

import metrics
from metrics import Defect, kernels


def compiled():
    functions = [value for value in vars(kernels).values() if isinstance(value, numba.core.dispatcher.Dispatcher)]
    return {function.__name__: len(function.signatures) for function in functions}


def test_nothing_is_left_to_compile():
    metrics.warm_up()
    before = compiled()
    assert min(before[name] for name in ("sift", "copy_finite", "merge", "upsample", "label_regions", "pack")) > 0
    rng = np.random.default_rng(1)
    mask = np.zeros((70, 80), bool)
    mask[10:30, 10:40] = True
    for lift in (0, 1, 10):
        small = rng.random((3, 35, 40), np.float32)
        small[2, 5:15, 5:20] += lift
        for maps in (metrics.UpsampledMaps(small, [(70, 80)] * 3), np.repeat(np.repeat(small, 2, 1), 2, 2)):
            metrics.evaluate_pixels(maps, [None, None, mask])
            metrics.evaluate_saturated(maps, [[], [], [Defect(mask, 50)]])
    assert compiled() == before
