"""Each definition against a few lines that threshold the maps as the code it describes does."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import metrics
from metrics.definitions import (
    DEFINITIONS,
    RESIZED,
    bilinear,
    evaluate_definitions,
    more_than_half,
    nearest,
    touched,
    truncated,
)


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


def points(case, thresholds, dilate=1, inclusive=False):
    """Return FPR and mean overlap of maps > threshold, or >= it."""
    maps, masks = case
    above = np.greater_equal if inclusive else np.greater
    normal = maps[np.array([np.ones(maps[0].shape, bool) if mask is None else ~mask for mask in masks])]
    # A pixel is in the dilated prediction where the highest score around it is above the threshold.
    highest = maximum_filter(maps, dilate)
    inside = [highest[index][region] for index, region in regions(masks)]
    fpr = np.array([above(normal, t).mean() for t in thresholds])
    return fpr, np.array([np.mean([above(scores, t).mean() for scores in inside]) for t in thresholds])


def maximum_filter(maps, side):
    return np.array([ndimage.maximum_filter(m, side, mode="constant", cval=-np.inf) for m in maps])


def rescaled(fpr, pro):
    fpr, pro = fpr[fpr < 0.3], pro[fpr < 0.3]
    return np.trapezoid(pro[::-1], fpr[::-1] / fpr.max())


def test_exact_definitions_are_the_metric(case):
    au_pro = metrics.evaluate_pixels(*case).au_pro
    for name, limit in (("exact@0.3", 0.3), ("exact@0.05", 0.05), ("no limit", 1.0)):
        assert value(case, name) == au_pro[limit]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "quantised"), [(100, False), (100, True), (5000, False)])
def test_equidistant_ranks(case, count, quantised):
    maps, masks = case
    maps = np.round(maps, 1) if quantised else maps
    normal = np.sort(np.concatenate([m[True if k is None else ~k].ravel() for m, k in zip(maps, masks, strict=True)]))
    positions = np.linspace(0, normal.size - 1, count, dtype=int)
    _, pro = points((maps, masks), normal[positions])
    fpr = (1 - (positions + 1) / normal.size)[::-1]
    x = np.append(fpr[fpr < 0.3], 0.3)
    y = np.append(pro[::-1][fpr < 0.3], np.interp(0.3, fpr, pro[::-1]))
    assert value((maps, masks), f"{count} ranks") == pytest.approx(np.trapezoid(y, x) / 0.3, abs=1e-12)


def test_linear_thresholds(case):
    low, high = float(case[0].min()), float(case[0].max())
    thresholds = np.arange(200) * (high - low) / 200 + low
    assert value(case, "200 thresholds, rescaled") == pytest.approx(rescaled(*points(case, thresholds)), abs=1e-12)
    expected = rescaled(*points(case, thresholds, dilate=5))
    assert value(case, "dilated prediction") == pytest.approx(expected, abs=1e-12)


def test_linear_thresholds_image_by_image(case):
    maps, masks = case
    alone = [value((maps[[i]], [masks[i]]), "200 thresholds, rescaled") for i in range(3, 8)]
    assert value(case, "200 thresholds, image by image") == pytest.approx(np.mean(alone), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("share", [1, 0.95, 0.9])
def test_score_bins(case, share):
    """With many pixels at the highest score the curve begins there, not at the origin."""
    maps, masks = np.minimum(case[0], np.float32(np.quantile(case[0], share))), case[1]
    edges = np.linspace(0, 1, 1001, dtype=np.float32) * (maps.max() - maps.min()) + maps.min()
    fpr, pro = (values[::-1] for values in points((maps, masks), edges, inclusive=True))
    x = np.append(fpr[fpr < 0.3], 0.3)
    y = np.append(pro[fpr < 0.3], np.interp(0.3, fpr, pro))
    assert value((maps, masks), "1000 score bins") == pytest.approx(np.trapezoid(y, x) / 0.3, abs=1e-12)


def test_an_outlier_makes_all_bins_but_one_useless(case):
    outlier = case[0].copy()
    outlier[0, 0, 0] = 1e4
    assert abs(value((outlier, case[1]), "1000 score bins") - value(case, "exact@0.3")) > 0.1


def test_only_anomalous_images(case):
    maps, masks = case
    assert value(case, "anomalous images only") == metrics.evaluate_pixels(maps[3:], masks[3:]).au_pro[0.3]


def test_masks_by_nearest_neighbour():
    mask = np.zeros((512, 1024), bool)
    mask[100:103, 7] = True
    mask[300:400, 500:700] = True
    assert np.array_equal(nearest(mask), mask[1::2, 2::4])


@pytest.mark.parametrize("size", [200, 700, 1024])
def test_bilinear_masks_are_those_of_an_image_library(size):
    rows, columns = np.mgrid[:size, :size]
    mask = (rows - 0.4 * size) ** 2 + (columns - 0.6 * size) ** 2 < (0.2 * size) ** 2
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize((RESIZED, RESIZED), Image.Resampling.BILINEAR)
    # Pillow also rounds between its two passes.
    assert np.abs(bilinear(mask).astype(int) - np.asarray(image)).max() <= 1


@pytest.mark.parametrize(("columns", "covered"), [(9, (1, 2, 3)), (10, (2, 3, 3))])
def test_rounding_rules(columns, covered):
    """The second target pixel is hardly missed with 9 of its 10 columns, the third is half covered with 10."""
    mask = np.zeros((1024, 1024), bool)
    mask[:, :columns] = True
    assert tuple(rule(mask)[100].sum() for rule in (truncated, more_than_half, touched)) == covered


def test_rounding_rules_are_ordered_by_area(case):
    maps = [np.kron(m, np.ones((10, 10), np.float32)) for m in case[0]]
    masks = [None if m is None else np.kron(m, np.ones((10, 10))) for m in case[1]]
    results = {r.definition.name: r for r in evaluate_definitions(maps, masks)}
    assert list(results) == [definition.name for definition in DEFINITIONS]
    values = [results[f"256, {rule}"].value for rule in ("truncated", "half covered", "touched")]
    assert values == sorted(values, reverse=True)
    assert results["exact@0.3"].deviation == 0
    assert all(r.definition.source and r.definition.description for r in results.values())


def test_a_definition_that_gives_nothing_leaves_the_others(case):
    maps, masks = case[0][2:4], [None, np.ones((40, 40), bool)]
    results = {r.definition.name: r.value for r in evaluate_definitions(maps, masks)}
    assert np.isnan(results["anomalous images only"])
    assert results["exact@0.3"] == metrics.evaluate_pixels(maps, masks).au_pro[0.3]


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
