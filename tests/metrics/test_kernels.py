import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from metrics import kernels


def test_code_that_cannot_be_cached_still_compiles():
    # Code that is in no file has no place for a cache, like a package folder and a home that cannot be written.
    names = {}
    exec("def double(x):\n    return 2 * x", names)
    assert kernels.compiled(names["double"])(21) == 42


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.floats(0, 1))
def test_regions_are_those_of_scipy(seed, shape, density):
    mask = np.random.default_rng(seed).random(shape) < density
    pixels = np.flatnonzero(mask)
    region, count = kernels.label_regions(pixels, shape[1])
    expected, number = ndimage.label(mask, np.ones((3, 3)))
    assert count == number
    assert np.array_equal(region, expected.ravel()[pixels] - 1)


@settings(deadline=None)  # its first call may compile
@given(st.lists(st.sampled_from([1.0, np.nan, np.inf, -np.inf, 3e38]), max_size=50))
def test_finite(values):
    array = np.array(values, np.float32)
    copy = np.zeros(60)
    assert kernels.copy_finite(array, copy) == np.isfinite(array).all()
    assert np.array_equal(copy[: array.size], array, equal_nan=True)
    assert not copy[array.size :].any()
