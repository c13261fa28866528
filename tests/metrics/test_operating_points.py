import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics

levels = st.lists(st.integers(0, 9), min_size=1, max_size=40)


@settings(deadline=None)
@given(levels, levels, st.sampled_from([0.0, 0.05, 0.07, 0.5, 0.99]))
def test_no_lower_threshold_keeps_the_declared_rate(normal, anomalous, fpr):
    normal, anomalous = np.array(normal), np.array(anomalous)
    (point,) = metrics.operating_points(normal, anomalous, np.ones(anomalous.size), [fpr])
    allowed = [t for t in normal if np.mean(normal > t) <= fpr + 1e-12]
    assert point.threshold == min(allowed)
    assert point.validation_fpr == np.mean(normal > point.threshold)
    assert point.false_negative_rate == np.mean(anomalous <= point.threshold)
    assert math.isnan(point.realised_fpr)


@settings(deadline=None)
@given(levels, levels, st.sampled_from([0.0, 0.05, 0.25, 0.9]))
def test_rates_on_the_test_images_themselves(normal, anomalous, rate):
    normal, anomalous = np.array(normal), np.array(anomalous)
    scores, labels = np.append(normal, anomalous), np.repeat([0, 1], [normal.size, anomalous.size])
    cuts = [-np.inf, *range(10)]
    missed = min(np.mean(anomalous <= t) for t in cuts if np.mean(normal > t) <= rate + 1e-12)
    false = min(np.mean(normal > t) for t in cuts if np.mean(anomalous <= t) <= rate + 1e-12)
    assert metrics.false_negative_rates(scores, labels, [rate])[rate] == missed
    assert metrics.false_positive_rates(scores, labels, [rate])[rate] == false


def test_declared_and_realised_rate_can_differ():
    (point,) = metrics.operating_points([1, 2, 3, 4], [3.5, 4.5, 4.2, 9], [0, 0, 1, 1], [0.0])
    assert (point.threshold, point.validation_fpr, point.realised_fpr, point.false_negative_rate) == (4, 0, 0.5, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [1], [1]), "no validation image"),
        (([np.nan], [1], [1]), "validation image 0: the image score is nan"),
        (([1], [np.nan], [1]), "^image 0: the image score is nan"),
        (([1], [1], [1], [1.0]), r"in \[0, 1\)"),
    ],
)
def test_unusable_input(arguments, message):
    with pytest.raises(metrics.MetricError, match=message):
        metrics.operating_points(*arguments)


def test_rates_need_both_kinds_of_images():
    with pytest.raises(metrics.MetricError, match="no normal image"):
        metrics.false_negative_rates([1], [1])
    with pytest.raises(metrics.MetricError, match="no anomalous image"):
        metrics.false_positive_rates([1], [0])


def test_a_rate_that_floats_cannot_express_is_kept_in_full():
    assert 0.29 * 100 < 29
    (point,) = metrics.operating_points(range(100), [0], [1], [0.29])
    assert point.validation_fpr == 0.29
