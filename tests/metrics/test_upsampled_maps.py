import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics


def torch_upsample(source, size):
    tensor = torch.from_numpy(np.ascontiguousarray(source))[None, None]
    return torch.nn.functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)[0, 0].numpy()


sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), sizes, st.sampled_from([np.float32, np.float64]))
def test_equals_torch(shape, size, dtype):
    source = np.random.default_rng(shape[0]).random(shape).astype(dtype)
    found = metrics.UpsampledMaps([source], [size])[0]
    assert found.dtype == dtype
    assert np.abs(found - torch_upsample(source, size)).max() <= 1e-6


def test_half_precision_is_upsampled_in_float32():
    source = np.random.default_rng(0).random((8, 8)).astype(np.float16)
    found = metrics.UpsampledMaps([source], [(40, 30)])[0]
    assert found.dtype == np.float32
    assert np.abs(found - torch_upsample(source.astype(np.float32), (40, 30))).max() <= 1e-6


def test_padding_is_cut_off_before_upsampling():
    source = np.random.default_rng(0).random((2, 12, 10), dtype=np.float32)
    one = metrics.UpsampledMaps(source, [(30, 40), (7, 5)], padding=(1, 2, 3, 0))
    each = metrics.UpsampledMaps(source, [(30, 40), (7, 5)], padding=[(1, 2, 3, 0), (0, 0, 0, 0)])
    assert np.abs(one[0] - torch_upsample(source[0, 1:-2, 3:], (30, 40))).max() <= 1e-6
    assert np.array_equal(one[0], each[0])
    assert np.abs(each[1] - torch_upsample(source[1], (7, 5))).max() <= 1e-6


def test_evaluating_lazily_is_evaluating_the_upsampled_maps():
    rng = np.random.default_rng(0)
    network = rng.random((6, 9, 7), dtype=np.float32)
    shapes = [(30 + i, 50 - i) for i in range(6)]
    masks = [None, *(rng.random(shape) < 0.1 for shape in shapes[1:])]
    lazy = metrics.UpsampledMaps(network, shapes)
    assert metrics.evaluate_pixels(lazy, masks).named() == metrics.evaluate_pixels(list(lazy), masks).named()
    assert len(lazy[1:3]) == 2
    assert np.array_equal(lazy[1:3][1], lazy[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([np.zeros((2, 2))], []), "1 network maps for 0 image sizes"),
        (([np.zeros((2, 2))], [(0, 3)]), "at least 1 × 1"),
        (([np.zeros((2, 2))], [(3, 3)], (-1, 0, 0, 0)), "padding must not be negative"),
    ],
)
def test_unusable_arguments(arguments, message):
    with pytest.raises(metrics.MetricError, match=message):
        metrics.UpsampledMaps(*arguments)


def test_padding_that_leaves_nothing_names_the_image():
    with pytest.raises(metrics.MetricError, match="image 0"):
        metrics.UpsampledMaps([np.zeros((2, 2))], [(3, 3)], (1, 1, 0, 0))[0]
