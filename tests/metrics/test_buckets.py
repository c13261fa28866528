import numpy as np
import pytest
from brute_force import SCORES, random_case
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics
from metrics import buckets, engine, kernels
from metrics.inputs import MapReader


def ranked(scores, thresholds, sample, **constants):
    """Rank the pixels of one normal map with a table, whatever the sample says of its use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "LARGEST_KEPT_SHARE", 1.0)
        for name, value in constants.items():
            patch.setattr(engine, name, value)
        reader = MapReader([scores.reshape(1, -1)])
        nothing = np.zeros(thresholds.size, np.int64)
        return engine.rank(reader, [None], thresholds, nothing, thresholds[:0], sample, 1)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
extreme = st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 0.25, np.nextafter(np.float32(0.25), 1)])
scores = st.lists(finite | extreme, min_size=1, max_size=60)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(scores, scores, scores, st.sampled_from([np.float32, np.float64]))
def test_the_rank_is_that_of_a_comparison_with_every_threshold(pixels, thresholds, sample, dtype):
    pixels = np.array(pixels, dtype)
    if dtype == np.float64:  # differences that float32 does not hold
        pixels = np.concatenate([pixels, pixels * (1 + 1e-12)])
    thresholds = np.unique(np.array(thresholds, dtype))
    found = ranked(pixels, thresholds, np.array(sample, dtype))
    assert found.normals == pixels.size
    assert found.at_least.tolist() == [np.count_nonzero(pixels >= t) for t in thresholds]
    assert found.above.tolist() == [np.count_nonzero(pixels > t) for t in thresholds]


def test_float64_beyond_the_range_of_float32():
    pixels = np.array([1e300, 2e300, -1e300, 0.5, 1e39, -2e39])
    thresholds = np.array([-1e300, 0.5, 1e39, 1.5e300])
    found = ranked(pixels, thresholds, pixels[::-1].copy())
    assert found.at_least.tolist() == [6, 4, 3, 1]
    assert found.above.tolist() == [5, 3, 2, 1]


@pytest.mark.parametrize("most", [100, 4096, 1 << 30])
def test_counters_that_are_emptied_and_blocks_that_fill_up(most):
    rng = np.random.default_rng(0)
    pixels, thresholds = rng.random(20_000, dtype=np.float32), np.sort(rng.random(50, dtype=np.float32))
    found = ranked(pixels, thresholds, pixels[::7], MOST_LOOKED_UP=most, SMALLEST_BLOCK=60)
    ordered = np.sort(pixels)
    assert np.array_equal(found.at_least, pixels.size - np.searchsorted(ordered, thresholds, "left"))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(SCORES)))
def test_metrics_are_the_same_with_and_without_a_table(seed, kind):
    maps, masks = random_case(seed, kind, 4)
    values = []
    for share in (0.0, 1.0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(buckets, "LARGEST_KEPT_SHARE", share)
            values.append(metrics.evaluate_pixels(maps, masks, threads=1).named())
    assert values[0] == pytest.approx(values[1], abs=0, nan_ok=True)


@pytest.mark.parametrize("transform", [lambda x: x, lambda x: x**30, lambda x: np.exp(-20 * x), lambda x: x - 0.5])
def test_most_pixels_need_no_comparison_however_the_scores_are_distributed(transform):
    rng = np.random.default_rng(0)
    normal = transform(rng.beta(8, 24, 200_000)).astype(np.float32)
    thresholds = np.unique(transform(rng.beta(8, 6, 20_000)).astype(np.float32))
    table = buckets.make_table(thresholds, normal[::50])
    counters = table.counters()
    kept = np.empty_like(normal)
    axis = table.axis
    count, ok = kernels.sift(normal, axis.low, axis.high, axis.shift, axis.cells, counters, kept)
    assert ok
    assert count < 0.1 * normal.size
    assert set(thresholds.tolist()) & set(normal.tolist()) <= set(kept[:count].tolist())


def test_no_table_where_thresholds_are_as_dense_as_the_pixels():
    scores = np.linspace(0, 1, 3_000_000, dtype=np.float32)
    assert buckets.make_table(np.unique(scores), scores[::100]) is None
    assert buckets.make_table(scores[:0], scores) is None
    assert buckets.make_table(scores[:1], scores[:0]) is None
