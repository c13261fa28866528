from statistics import NormalDist

import numpy as np
import pytest
from brute_force import LIMITS, image_values, pixel_values, random_case
from simulated_maps import simulate

import metrics
from metrics import bootstrap


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["few values", "smooth", "constant"])
def test_counts_reproduce_the_metrics_and_every_resample(kind):
    maps, masks = random_case(7, kind, 5)
    counts = metrics.count_pixels(maps, masks)
    weights = np.array([[1, 1, 1, 1, 1], [0, 2, 1, 1, 1], [3, 1, 0, 1, 0]])
    found = bootstrap.pixel_values(counts, weights.astype(float), LIMITS)
    for row, weight in enumerate(weights):
        copies = np.repeat(np.arange(5), weight)
        if all(masks[i] is None or not np.any(masks[i]) for i in copies):
            continue
        expected = pixel_values([maps[i] for i in copies], [masks[i] for i in copies], LIMITS)
        for name, values in found.items():
            assert values[row] == pytest.approx(expected[name], abs=1e-9), (name, row)


@pytest.mark.slow
def test_few_thresholds_are_close():
    maps, masks = simulate(np.random.default_rng(0))
    exact = metrics.evaluate_pixels(maps, masks, LIMITS).named()
    intervals = metrics.bootstrap_pixels(metrics.count_pixels(maps, masks, points=64), LIMITS, resamples=10)
    for name, interval in intervals.items():
        assert interval.value == pytest.approx(exact[name], abs=2e-3)


def test_image_resamples_equal_the_definition():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 12), np.arange(12) < 5
    ranked = bootstrap.RankedScores(scores.astype(float), labels)
    weights = np.vstack((np.ones(12), rng.multinomial(12, np.full(12, 1 / 12), size=5)))
    found = ranked.values(weights)
    for row, weight in enumerate(weights.astype(int)):
        copies = np.repeat(np.arange(12), weight)
        for name, value in image_values(scores[copies], labels[copies]).items():
            assert found[name][row] == pytest.approx(value, abs=1e-12)


def test_the_seed_decides():
    maps, masks = simulate(np.random.default_rng(0))
    counts = metrics.count_pixels(maps, masks)
    first, again, other = (metrics.bootstrap_pixels(counts, resamples=50, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([None, None], "nothing to resample"),
        ([np.ones((2, 2)), np.ones((2, 2))], "every pixel is a defect"),
        ([np.eye(2), None], "at least two normal and two anomalous"),
    ],
)
def test_unusable_input(masks, message):
    with pytest.raises(metrics.MetricError, match=message):
        metrics.bootstrap_pixels(metrics.count_pixels(np.zeros((2, 2, 2), np.float32), masks))
    with pytest.raises(metrics.MetricError, match="level"):
        metrics.bootstrap_images([0, 1, 2, 3], [0, 1, 0, 1], level=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_names_the_image(bad):
    maps, masks = simulate(np.random.default_rng(0), images=6)
    maps[3, 1, 2] = bad
    with pytest.raises(metrics.MetricError, match=f"image 3: the score at row 1, column 2 is {bad}"):
        metrics.count_pixels(maps, masks)


@pytest.mark.slow
def test_the_image_interval_covers_the_truth():
    distance, covered, trials = 1.2, 0, 300
    truth = NormalDist().cdf(distance / np.sqrt(2))  # AU-ROC of two normal distributions so far apart
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 60)
    for trial in range(trials):
        scores = rng.standard_normal(120) + distance * labels
        interval = metrics.bootstrap_images(scores, labels, resamples=300, seed=trial)["image_au_roc"]
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / trials <= 0.98


def pick(counts, images):
    """Return the counts of some images; every second one has exactly one region."""
    regions = np.flatnonzero(np.isin(counts.region_image, images))
    return metrics.PixelCounts(
        anomalous=counts.anomalous[images],
        normals=counts.normals[images],
        at_least=counts.at_least[images],
        above=counts.above[images],
        region_image=np.searchsorted(images, counts.region_image[regions]),
        region_area=counts.region_area[regions],
        found_at_least=counts.found_at_least[regions],
        found_above=counts.found_above[regions],
    )


@pytest.mark.slow
def test_the_au_pro_interval_covers_the_truth():
    population, trials, covered = 4000, 300, 0
    rng = np.random.default_rng(4)
    counts = metrics.count_pixels(*simulate(rng, images=population), points=24)
    truth = bootstrap.pixel_values(counts, np.ones((1, population)), (0.3,))["au_pro@0.3"][0]
    for trial in range(trials):
        pairs = np.sort(rng.choice(population // 2, 40, replace=False))
        sample = pick(counts, np.sort(np.append(2 * pairs, 2 * pairs + 1)))
        interval = metrics.bootstrap_pixels(sample, (0.3,), resamples=300, seed=trial)["au_pro@0.3"]
        covered += interval.low <= truth <= interval.high
    assert 0.92 <= covered / trials <= 0.98


def test_a_mean_over_evaluations_is_as_much_narrower_as_a_mean_should_be():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 60)
    alone = [
        metrics.bootstrap_images(rng.standard_normal(120) + labels, labels, seed=(0, number))["image_au_roc"]
        for number in range(16)
    ]
    mean = metrics.mean_interval(alone)
    assert mean.value == pytest.approx(np.mean([interval.value for interval in alone]))
    widths = [interval.high - interval.low for interval in alone]
    assert mean.high - mean.low == pytest.approx(np.sqrt(np.mean(np.square(widths)) / 16), rel=0.1)
