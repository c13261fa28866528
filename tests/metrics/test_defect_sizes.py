import math

import numpy as np
import pytest
from brute_force import EIGHT, area_up_to, pixel_values, random_case, sweep
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

import metrics

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(["few values", "smooth", "finer than float32"])


def keep_regions(mask, bound):
    """Return the mask without the regions larger than ``bound``."""
    labels, number = ndimage.label(np.asarray(mask) != 0, EIGHT)
    areas = np.bincount(labels.ravel(), minlength=number + 1)
    return (labels > 0) & (areas <= bound)[labels]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(seeds, kinds)
def test_excluded_regions_as_false_alarms(seed, kind):
    maps, masks = random_case(seed, kind, 4)
    result = metrics.evaluate_pixels(maps, masks, (0.3,), excluded="negative")
    assume(not result.undefined)
    for bound, value in zip(result.quartiles[0.3].areas, result.quartiles[0.3].au_pro, strict=True):
        kept = [None if mask is None else keep_regions(mask, bound) for mask in masks]
        assert value == pytest.approx(pixel_values(maps, kept, (0.3,))["au_pro@0.3"], abs=1e-9)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(seeds, kinds)
def test_images_with_excluded_regions_dropped(seed, kind):
    maps, masks = random_case(seed, kind, 5)
    result = metrics.evaluate_pixels(maps, masks, (0.3,), excluded="drop_images")
    assume(result.defect_pixels and result.normal_pixels)
    for q, (bound, value) in enumerate(
        zip(result.quartiles[0.3].areas, result.quartiles[0.3].au_pro, strict=True), start=1
    ):
        kept = [
            i for i, m in enumerate(masks) if m is None or np.array_equal(keep_regions(m, bound), np.asarray(m) != 0)
        ]
        inside = [np.asarray(masks[i]) != 0 for i in kept if masks[i] is not None]
        normal = sum(maps[i].size for i in kept) - sum(m.sum() for m in inside)
        if any(m.any() for m in inside) and normal:
            expected = pixel_values([maps[i] for i in kept], [masks[i] for i in kept], (0.3,))["au_pro@0.3"]
            assert value == pytest.approx(expected, abs=1e-9)
        else:
            assert math.isnan(value)
            assert {f"au_pro_q{q}@0.3", "size_robustness@0.3"} <= set(result.undefined)


def test_an_unknown_reading_is_refused():
    with pytest.raises(metrics.MetricError, match="ignore, negative, drop_images, not 'drop'"):
        metrics.evaluate_pixels(np.zeros((1, 2, 2)), [np.eye(2)], excluded="drop")


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(seeds, kinds, st.integers(3, 60))
def test_thinning_keeps_every_area(seed, kind, points):
    maps, masks = random_case(seed, kind, 3)
    limits = (0.05, 0.3, 1.0)
    result = metrics.evaluate_pixels(maps, masks, limits, curve_points=points)
    assert (result.curves is None) == bool(result.undefined)
    assume(result.curves is not None)
    curves = result.curves
    for curve, values in ((curves.pro, result.au_pro), (curves.roc, result.au_roc)):
        assert curve.x.size <= points + 4 + 2 * len(limits)
        assert (np.diff(curve.x) >= 0).all()
        assert (np.diff(curve.y) >= 0).all()
        assert 0 <= curve.y.min() <= curve.y.max() <= 1
        for limit in limits:
            assert area_up_to(curve.x, curve.y, limit) == pytest.approx(values[limit], abs=1e-9)
    precision = curves.precision_recall
    assert precision.x.size <= points
    area = np.sum(np.diff(precision.x, prepend=0) * precision.y)
    assert area == pytest.approx(result.average_precision, abs=1e-9)


def test_a_curve_with_room_for_all_points_goes_through_them():
    maps, masks = random_case(5, "few values", 4)
    curve = metrics.evaluate_pixels(maps, masks, (1.0,), curve_points=1000).curves.roc
    defect = [np.zeros(m.shape, bool) if k is None else np.asarray(k) != 0 for m, k in zip(maps, masks, strict=True)]
    positive = np.concatenate([m[d] for m, d in zip(maps, defect, strict=True)])
    fpr, tpr = sweep(maps, defect, lambda t: np.mean(positive >= t))
    drawn = set(zip(curve.x.round(12).tolist(), curve.y.round(12).tolist(), strict=True))
    assert set(zip(fpr.round(12).tolist(), tpr.round(12).tolist(), strict=True)) <= drawn


def test_quartiles_are_given_at_the_limits_asked_for_and_no_other():
    maps, masks = random_case(5, "smooth", 4)
    every = metrics.evaluate_pixels(maps, masks, (0.05, 0.3)).named()
    some = metrics.evaluate_pixels(maps, masks, (0.05, 0.3), quartile_limits=(0.3,)).named()
    left_out = {f"au_pro_q{quartile}@0.05" for quartile in (1, 2, 3, 4)} | {"size_robustness@0.05"}
    assert set(every) - set(some) == left_out
    assert some == {name: every[name] for name in some}
    nothing = metrics.evaluate_pixels(maps, [None] * len(maps), (0.05, 0.3), quartile_limits=(0.3,))
    assert set(nothing.named()) == set(nothing.undefined) == set(some)
    with pytest.raises(metrics.MetricError, match="not among fpr_limits"):
        metrics.evaluate_pixels(maps, masks, (0.05,), quartile_limits=(0.3,))


def test_rows_of_regions():
    scores = np.array([[9, 8, 0, 7], [1, 2, 3, 4]], np.float32)
    mask = np.array([[1, 1, 0, 1], [0, 0, 0, 0]])
    result = metrics.evaluate_pixels([-scores, scores], [None, mask], (0.5,), threshold=8)
    rows = result.regions.rows(["good/0", "hole/1"], ["good", "hole"])
    assert [(row["image"], row["name"], row["defect_type"], row["area"]) for row in rows] == [
        (1, "hole/1", "hole", 2),
        (1, "hole/1", "hole", 1),
    ]
    assert [row["overlap_above_threshold"] for row in rows] == [0.5, 0.0]
    assert np.mean([row["au_pro@0.5"] for row in rows]) == result.au_pro[0.5]


@pytest.mark.parametrize(
    ("area", "overlap", "recall", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 0.5, 3),
        ([4, 3, 2, 1], [1, 1, 0, 0], 0.5, 3),
        ([1, 2, 3, 4], [1, 0, 1, 1], 0.5, 1),  # one lucky pixel and one miss: a half is expected at 1 and 2
        ([1, 2, 3, 4], [1, 0, 1, 1], 0.6, 3),
        ([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], 0.5, math.nan),
        ([5, 5, 5, 7], [1, 0, 0, 1], 0.5, 7),
        ([], [], 0.5, math.nan),
    ],
)
def test_minimum_detectable_area(area, overlap, recall, expected):
    assert metrics.minimum_detectable_area(area, overlap, recall) == pytest.approx(expected, nan_ok=True)


def test_minimum_detectable_area_refuses_nonsense():
    with pytest.raises(metrics.MetricError, match="areas of shape"):
        metrics.minimum_detectable_area([1, 2], [1])
    with pytest.raises(metrics.MetricError, match="recall"):
        metrics.minimum_detectable_area([1], [1], 0)
