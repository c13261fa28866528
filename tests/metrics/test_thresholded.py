import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics
from metrics import MetricError, count_exceeding, decide, exceeds

RNG = np.random.default_rng(0)


def f1(called, truth):
    true = np.sum(called & truth)
    return 2 * true / (2 * true + np.sum(called & ~truth) + np.sum(~called & truth))


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_decisions_on_images_are_the_textbook_s(pairs):
    called, truth = (np.array(values) for values in zip(*pairs, strict=True))
    decisions = decide(called, truth)
    if truth.any():
        assert decisions.f1 == f1(called, truth)
        assert decisions.recall == np.mean(called[truth])
    else:
        assert math.isnan(decisions.f1)
        assert decisions.undefined["f1"] == decisions.undefined["recall"] == "no image is anomalous"
    if truth.all():
        assert math.isnan(decisions.false_positive_rate)
        assert decisions.undefined["fpr"] == "no image is normal"
    else:
        assert decisions.false_positive_rate == np.mean(called[~truth])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_decisions_on_pixels_are_those_of_all_pixels_at_once(dtype, threads):
    maps = RNG.integers(0, 12, (6, 9, 7)).astype(dtype) / dtype(8)
    masks = [None, None, None, *(RNG.random((3, 9, 7)) < 0.3)]
    anomalous = np.array([0, 0, 0, 1, 1, 1], np.bool_)
    thresholds = [0.0, 0.5, 0.55, 1.0, 99.0]
    pixels = count_exceeding(maps, masks, thresholds, threads=threads)
    truth = np.stack([np.zeros((9, 7), np.bool_) if mask is None else mask for mask in masks])
    for place, threshold in enumerate(thresholds):
        called = maps.astype(np.float64) > threshold
        decisions = pixels.decide(place, anomalous)
        assert decisions.f1 == f1(called, truth)
        assert decisions.recall == np.mean(called[truth])
        assert decisions.false_positive_rate == np.mean(called[:3])
        assert pixels.images(place).tolist() == called.any((1, 2)).tolist()


def test_without_masks_images_are_still_decided():
    maps = np.zeros((2, 3, 3), np.float32)
    maps[1, 1, 1] = 2
    pixels = count_exceeding(maps, None, [1.0])
    assert pixels.images(0).tolist() == [False, True]
    decisions = pixels.decide(0, np.array([False, True]))
    assert decisions.undefined == dict.fromkeys(["f1", "recall"], "no mask marks a defect pixel")
    assert decisions.false_positive_rate == 0


@given(st.floats(-1e300, 1e300), st.floats(-(2.0**127), 2.0**127, width=32))
def test_a_threshold_between_two_values_of_a_type_separates_exactly(threshold, score):
    assert exceeds(np.array([score], np.float32), threshold)[0] == (score > threshold)


def test_a_threshold_that_rounds_to_a_score_still_separates():
    score = np.float32(0.1)  # above 0.1
    for threshold in (0.1, float(score), math.nextafter(float(score), 0), math.nextafter(float(score), 1)):
        assert exceeds(np.array([score]), threshold)[0] == (float(score) > threshold)


def test_bad_input_is_named():
    maps = np.zeros((2, 3, 3), np.float32)
    maps[1, 2, 0] = np.inf
    with pytest.raises(MetricError, match=r"image 1 \(b\): the score at row 2, column 0 is inf"):
        count_exceeding(maps, None, [1.0], names=["a", "b"])
    with pytest.raises(MetricError, match="2 maps, but 1 masks"):
        count_exceeding(maps, [None], [1.0])
    with pytest.raises(MetricError, match=r"the map has shape \(3, 3\), its mask \(2, 2\)"):
        count_exceeding(maps, [np.ones((2, 2)), None], [1.0], threads=1)
    with pytest.raises(MetricError, match="must be finite"):
        exceeds(maps[0], math.nan)


def test_the_package_offers_both():
    assert {"NormalImages", "count_exceeding", "decide"} <= set(metrics.__all__)
