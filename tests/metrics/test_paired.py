from itertools import product

import numpy as np
import pytest
from brute_force import image_values
from scipy import stats
from simulated_maps import simulate

import metrics

KINDS = np.repeat([0, 1, 2], 20)  # normal, structural, logical


def test_a_paired_difference_is_narrower_than_two_intervals():
    maps, masks = simulate(np.random.default_rng(0))
    noise = np.random.default_rng(1).standard_normal(maps.shape).astype(np.float32)
    first, second = metrics.count_pixels(maps, masks), metrics.count_pixels(maps + noise / 4, masks)
    alone = metrics.bootstrap_pixels(first, (0.3,), resamples=200)["au_pro@0.3"]
    difference = metrics.compare_pixels(first, second, (0.3,), resamples=200)["au_pro@0.3"]
    assert difference.low <= difference.value <= difference.high
    assert difference.high - difference.low < (alone.high - alone.low) / 2
    same = metrics.compare_pixels(first, first, (0.3,), resamples=20)["au_pro@0.3"]
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_a_paired_difference_of_image_scores():
    rng = np.random.default_rng(0)
    labels = np.arange(80) < 40
    good = 2 * labels + rng.standard_normal(80)
    difference = metrics.compare_images(good, rng.standard_normal(80), labels)["image_au_roc"]
    assert difference.low > 0
    assert metrics.compare_images(good, good * 3, labels)["image_f1_max"].high == 0


def test_different_images_are_not_compared():
    maps, masks = simulate(np.random.default_rng(0))
    counts = metrics.count_pixels(maps, masks)
    with pytest.raises(metrics.MetricError, match="same images"):
        metrics.compare_pixels(counts, metrics.count_pixels(maps[:-2], masks[:-2]))


def noisy(rng, trainings=1, gap=1.0):
    return rng.standard_normal((trainings, KINDS.size)) + gap * (KINDS > 0)


def test_the_difference_is_that_of_the_means_over_trainings_and_kinds():
    rng = np.random.default_rng(0)
    first, second = noisy(rng, trainings=3), noisy(rng, trainings=2)

    def mean(scores):
        halves = [np.isin(KINDS, (0, kind)) for kind in (1, 2)]
        values = [image_values(training[half], KINDS[half] > 0) for training in scores for half in halves]
        return {name: np.mean([value[name] for value in values]) for name in values[0]}

    left, right = mean(first), mean(second)
    for name, interval in metrics.compare_images(first, second, KINDS, resamples=10).items():
        assert interval.value == pytest.approx(left[name] - right[name], abs=1e-12)


def test_regions_follow_their_images():
    # Where every image has one region, resampling images is resampling regions; where all are of one image, it is not.
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 40)), np.full(40, 0.5)
    apart = metrics.compare_regions(first, second, np.arange(40))
    assert apart.value == pytest.approx(first.mean() - 0.5)
    deviation = (first.mean(axis=0) - 0.5).std(ddof=1) / np.sqrt(40)
    assert apart.high - apart.low == pytest.approx(2 * stats.t.ppf(0.975, 39) * deviation, rel=0.1)
    together = metrics.compare_regions(np.sort(first.mean(axis=0)), second, np.arange(40) // 10)
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_the_kinds_of_regions_count_alike_however_many_there_are():
    first, image, kinds = [0.9, 0.7, 0.5, 0.5, 0.5, 0.4], [0, 1, 2, 2, 2, 3], [1, 1, 2, 2, 2, 2]
    interval = metrics.compare_regions(first, np.zeros(6), image, kinds, resamples=10)
    assert interval.value == pytest.approx((0.8 + 0.475) / 2)


def test_a_method_does_not_differ_from_itself():
    rng = np.random.default_rng(0)
    scores, shares, image = noisy(rng, trainings=2), rng.random((2, 30)), np.arange(30) // 2
    for interval in (
        *metrics.compare_images(scores, scores, KINDS).values(),
        metrics.compare_regions(shares, shares, image),
    ):
        assert (interval.value, interval.low, interval.high) == (0, 0, 0)
    assert metrics.image_p_value(scores, scores, KINDS) == 1
    assert metrics.region_p_value(shares, shares, image) == 1


def test_a_clear_difference_has_the_lowest_p_value_there_is():
    rng = np.random.default_rng(0)
    assert metrics.image_p_value(noisy(rng, gap=4), noisy(rng, gap=0.2), KINDS, resamples=499) == 2 / 500
    shares = rng.random(60)
    assert metrics.region_p_value(shares + 0.3, shares, np.arange(60), resamples=499) == 2 / 500


def test_few_images_are_exchanged_in_all_ways():
    rng = np.random.default_rng(0)
    kinds = np.array([0, 0, 0, 1, 1, 1])
    first, second = np.stack((rng.random(6) + kinds, rng.random(6)))
    ranks = stats.rankdata(first), stats.rankdata(second)
    outcomes = []
    for swap in product((False, True), repeat=6):
        left, right = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
        outcomes.append(image_values(left, kinds)["image_au_roc"] - image_values(right, kinds)["image_au_roc"])
    at_least = np.mean(np.array(outcomes) >= outcomes[0] - 1e-12)
    assert metrics.image_p_value(first, second, kinds) == pytest.approx(min(1, 2 * at_least))

    parts = np.array([3.0, 1.0, -1.0]) / 4  # what each image adds: two regions in the first one
    sums = [float(np.dot(signs, parts)) for signs in product((1, -1), repeat=3)]
    expected = min(1, 2 * np.mean(np.array(sums) >= sums[0] - 1e-12))
    assert metrics.region_p_value([2, 1, 1, -1], np.zeros(4), [0, 0, 1, 2]) == pytest.approx(expected)


def test_scores_count_by_their_rank():
    rng = np.random.default_rng(0)
    first, second = noisy(rng, trainings=2), noisy(rng, trainings=2)
    assert metrics.image_p_value(first, second, KINDS) == metrics.image_p_value(np.exp(first), 100 + second, KINDS)


@pytest.mark.slow
def test_without_a_difference_a_low_p_value_is_as_rare_as_it_says():
    # Two methods that see the same thing, each with errors of its own.
    trials, level, rng = 300, 0.1, np.random.default_rng(5)
    kinds = np.repeat([0, 1], 15)
    low = np.zeros(2)
    for trial in range(trials):
        seen = kinds + rng.standard_normal(30)
        first, second = seen + 0.5 * rng.standard_normal((2, 30))
        low[0] += metrics.image_p_value(first, second, kinds, resamples=199, seed=trial) <= level
        shared = rng.standard_normal(12).repeat(3)  # the regions of an image are found or missed together
        shares = shared + rng.standard_normal(36)
        low[1] += metrics.region_p_value(shares, np.zeros(36), np.arange(36) // 3, resamples=199, seed=trial) <= level
    assert np.all((low / trials >= 0.06) & (low / trials <= 0.14)), low / trials


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        (lambda: metrics.compare_images([1, 2, 3], [1, 2, 3], [0, 1, 1]), "at least two normal"),
        (lambda: metrics.image_p_value([1, 2, 3, 4], [1, 2, 3, 4], [1, 1, 1, 1]), "at least two normal"),
        (lambda: metrics.compare_images([0, 1, 2, 3], [0, 1, np.nan, 3], [0, 1, 0, 1]), "image 2: the image score"),
        (lambda: metrics.image_p_value([[0, 1, 2, 3]] * 2, [0, 1, 2, 3], [0, 1, 0, 1]), "there are 2 and 1"),
        (lambda: metrics.compare_regions([0.5], [0.5, 0.5], [0]), "1 and 2 shares for 1 regions"),
        (lambda: metrics.compare_regions([0.5], [0.5], [0]), "at least two images"),
        (lambda: metrics.region_p_value([], [], []), "no defect region"),
    ],
)
def test_what_cannot_be_compared_is_named(compare, message):
    with pytest.raises(metrics.MetricError, match=message):
        compare()
