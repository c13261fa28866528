"""Each definition against a few lines that threshold the maps as the code it describes does."""

import numpy as np
import pytest
from scipy import ndimage

import metrics
from metrics.definitions import DEFINITIONS, RESIZED, _bilinear, _nearest, evaluate_definitions


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    maps = ndimage.gaussian_filter(rng.standard_normal((8, 40, 40)), (0, 2, 2)).astype(np.float32)
    masks = [None] * 3 + [ndimage.gaussian_filter(rng.standard_normal((40, 40)), 2) > 0.25 for _ in range(5)]
    for m, mask in zip(maps[3:], masks[3:], strict=True):
        m[mask] += 0.3
    return maps, masks


def value(case, name):
    (result,) = evaluate_definitions(*case, [name])
    return result.value


def regions(masks):
    for index, mask in enumerate(masks):
        if mask is not None:
            labels, number = ndimage.label(mask, np.ones((3, 3)))
            yield from ((index, labels == region) for region in range(1, number + 1))


def points(case, thresholds, dilate=None):
    """Return FPR and mean overlap of maps > threshold."""
    maps, masks = case
    normal = np.array([np.ones(maps[0].shape, bool) if mask is None else ~mask for mask in masks])
    fpr, pro = [], []
    for t in thresholds:
        positive = maps > t
        fpr.append(positive[normal].mean())
        if dilate:
            positive = np.array([ndimage.binary_dilation(p, np.ones((dilate, dilate))) for p in positive])
        pro.append(np.mean([positive[i][region].mean() for i, region in regions(masks)]))
    return np.array(fpr), np.array(pro)


def rescaled(fpr, pro):
    fpr, pro = fpr[fpr < 0.3], pro[fpr < 0.3]
    return np.trapezoid(pro[::-1], fpr[::-1] / fpr.max())


def test_exact_definitions_are_the_metric(case):
    au_pro = metrics.evaluate_pixels(*case).au_pro
    for name, limit in (("exact@0.3", 0.3), ("exact@0.05", 0.05), ("no limit", 1.0)):
        assert value(case, name) == au_pro[limit]


@pytest.mark.parametrize("quantised", [False, True])
def test_equidistant_ranks(case, quantised):
    count = 100
    maps, masks = case
    maps = np.round(maps, 1) if quantised else maps
    normal = np.sort(np.concatenate([m[True if k is None else ~k].ravel() for m, k in zip(maps, masks, strict=True)]))
    positions = np.linspace(0, normal.size - 1, count, dtype=int)
    _, pro = points((maps, masks), normal[positions])
    fpr = (1 - (positions + 1) / normal.size)[::-1]
    x = np.append(fpr[fpr < 0.3], 0.3)
    y = np.append(pro[::-1][fpr < 0.3], np.interp(0.3, fpr, pro[::-1]))
    assert value((maps, masks), f"{count} ranks") == pytest.approx(np.trapezoid(y, x) / 0.3, abs=1e-12)


def test_many_equidistant_ranks_approach_the_exact_value(case):
    assert value(case, "5000 ranks") == pytest.approx(value(case, "exact@0.3"), abs=1e-3)


def test_linear_thresholds(case):
    low, high = float(case[0].min()), float(case[0].max())
    thresholds = np.arange(200) * (high - low) / 200 + low
    assert value(case, "200 thresholds, rescaled") == pytest.approx(rescaled(*points(case, thresholds)), abs=1e-12)
    expected = rescaled(*points(case, thresholds, dilate=5))
    assert value(case, "dilated prediction") == pytest.approx(expected, abs=1e-12)


def test_score_bins_approach_the_exact_value(case):
    assert value(case, "1000 score bins") == pytest.approx(value(case, "exact@0.3"), abs=1e-3)
    outlier = case[0].copy()
    outlier[0, 0, 0] = 1e4  # the bins are then wider than all other scores
    assert abs(value((outlier, case[1]), "1000 score bins") - value(case, "exact@0.3")) > 0.1


def test_only_anomalous_images(case):
    maps, masks = case
    assert value(case, "anomalous images only") == metrics.evaluate_pixels(maps[3:], masks[3:]).au_pro[0.3]


def test_resized_masks():
    mask = np.zeros((512, 1024), bool)
    mask[100:103, 7] = True
    mask[300:400, 500:700] = True
    assert np.array_equal(_nearest(mask), mask[1::2, 2::4])
    share = _bilinear(mask)
    assert share.shape == (RESIZED, RESIZED)
    assert share.min() >= 0
    assert share.max() == pytest.approx(1)
    assert share.sum() * 2 * 4 == pytest.approx(mask.sum(), rel=1e-3)
    same = np.eye(RESIZED, dtype=bool)
    assert np.array_equal(_bilinear(same), same)


def test_rounding_rules_are_ordered_by_area(case):
    maps = [np.kron(m, np.ones((10, 10), np.float32)) for m in case[0]]
    masks = [None if m is None else np.kron(m, np.ones((10, 10))) for m in case[1]]
    results = {r.definition.name: r for r in evaluate_definitions(maps, masks)}
    assert list(results) == [definition.name for definition in DEFINITIONS]
    values = [results[f"256, {rule}"].value for rule in ("truncated", "half covered", "touched")]
    assert values == sorted(values, reverse=True)
    assert results["exact@0.3"].deviation == 0
    assert all(r.definition.source and r.definition.description for r in results.values())


def test_undefined_and_unknown(case):
    with pytest.raises(metrics.MetricError, match="undefined under every definition: no image is anomalous"):
        evaluate_definitions(case[0], [None] * 8)
    with pytest.raises(metrics.MetricError, match="no definition 'exakt'; there are exact"):
        evaluate_definitions(*case, ["exakt"])


def test_constant_maps_have_no_linear_thresholds(case):
    constant = np.zeros_like(case[0])
    assert np.isnan(value((constant, case[1]), "200 thresholds, rescaled"))
    assert np.isnan(value((constant, case[1]), "1000 score bins"))
    assert value((constant, case[1]), "exact@0.3") == pytest.approx(0.15)
