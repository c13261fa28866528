import math

import numpy as np
import pytest
from brute_force import image_values
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics

images = st.lists(
    st.tuples(st.one_of(st.integers(-2, 2), st.floats(-1e300, 1e300)), st.booleans()), min_size=2, max_size=30
).filter(lambda rows: len({label for _, label in rows}) == 2)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(images)
def test_equals_the_definition(rows):
    scores, labels = zip(*rows, strict=True)
    found = metrics.evaluate_images(scores, labels).named()
    expected = image_values(scores, labels)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name], abs=1e-12), name


def test_constant_scores_are_chance():
    assert metrics.evaluate_images([0.5] * 10, [0] * 7 + [1] * 3).au_roc == 0.5


@pytest.mark.parametrize(("labels", "reason"), [([0, 0], "no image is anomalous"), ([1, 1], "no image is normal")])
def test_undefined_is_nan_with_a_reason(labels, reason):
    result = metrics.evaluate_images([0.1, 0.2], labels)
    assert all(math.isnan(value) for value in result.named().values())
    assert set(result.undefined.values()) == {reason}


def test_unusable_scores():
    with pytest.raises(metrics.MetricError, match=r"image 1 \(b\): the image score is nan"):
        metrics.evaluate_images([0, np.nan], [0, 1], names=["a", "b"])
    with pytest.raises(metrics.MetricError, match="labels"):
        metrics.evaluate_images([0, 1], [0])
