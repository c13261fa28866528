"""Statistics of passes."""

import math

import numpy as np
import pytest
from scipy import signal, stats

from bench.timing.statistics import (
    bound_rank,
    distribution,
    drift,
    half_widths,
    percentile_bound,
    spread,
    throughput,
)

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize(("share", "fewest"), [(0.9, 64), (0.99, 662), (0.999, 6636)])
def test_a_percentile_is_bounded_from_as_many_samples_as_mlperf_says(share: float, fewest: int) -> None:
    assert bound_rank(fewest - 1, share) is None
    assert bound_rank(fewest, share) == fewest - 1


@pytest.mark.parametrize(("share", "rank"), [(0.9, 922), (0.99, 998)])
def test_ranks_of_a_thousand_samples(share: float, rank: int) -> None:
    assert bound_rank(1000, share) == rank
    # So many samples lie below the percentile with 99 %, and with one rank less they do not.
    assert stats.binom.cdf(rank - 1, 1000, share) >= 0.99 > stats.binom.cdf(rank - 2, 1000, share)


def test_the_bound_holds_in_99_of_100_experiments() -> None:
    samples = np.sort(GENERATOR.exponential(size=(4000, 300)), axis=1)
    true = -math.log(0.1)
    bounds = [percentile_bound(one, 0.9) for one in samples]
    holds = np.mean([bound is not None and bound >= true for bound in bounds])
    assert 0.985 <= holds <= 0.999


def test_a_distribution_holds_samples_and_no_mixtures_of_them() -> None:
    samples = GENERATOR.permutation(np.arange(1.0, 1001.0))
    summed = distribution(samples)
    assert (summed.least, summed.greatest, summed.mean) == (1, 1000, 500.5)
    assert summed.deviation == pytest.approx(np.std(samples, ddof=1))
    assert (summed.p50, summed.p90, summed.p95, summed.p99) == (500.5, 900, 950, 990)
    assert (summed.p90_bound, summed.p99_bound) == (922, 998)
    assert summed.p999 is None


def test_few_samples_have_no_tail() -> None:
    summed = distribution(np.array([3.0]))
    assert (summed.mean, summed.p50, summed.deviation) == (3, 3, None)
    assert {summed.p90, summed.p95, summed.p99, summed.p90_bound, summed.p99_bound} == {None}


def test_outliers_are_counted_and_stay() -> None:
    samples = np.concatenate([1 + 0.01 * GENERATOR.standard_normal(500), [5.0, 9.0]])
    summed = distribution(samples)
    assert summed.outliers == 2
    assert summed.greatest == 9
    assert summed.mean == pytest.approx(samples.mean())


def test_throughput_is_16000_by_the_sum_of_1000_batches() -> None:
    batches = np.full(1000, 26.0)
    assert throughput(16, batches) == pytest.approx(16_000 / 26)
    # A mean of rates would be another number.
    assert throughput(16, np.array([10.0, 30.0])) == pytest.approx(32 / 0.04)


def test_drift_and_two_kinds_of_passes_are_seen() -> None:
    still = 10 + 0.01 * GENERATOR.standard_normal(400)
    assert abs(drift(still) or 1) < 0.005
    assert drift(still * np.linspace(1, 1.1, 400)) == pytest.approx(0.077, abs=0.01)
    assert drift(still[:39]) is None
    assert spread(still) == pytest.approx(1, abs=0.01)
    assert spread(np.where(np.arange(400) % 3, 10.0, 20.0)) == 2
    assert spread(still[:9]) is None


def test_passes_that_depend_on_the_one_before_widen_the_interval() -> None:
    noise = GENERATOR.standard_normal(2000)
    walk = signal.lfilter([1], [1, -0.95], noise)
    alone = 100 + noise * walk.std() / noise.std()
    (dependent,), (independent,) = half_widths(100 + walk, [0.5]), half_widths(alone, [0.5])
    assert dependent > 2 * independent


@pytest.mark.parametrize("memory", [0.0, 0.5])
def test_intervals_are_as_wide_as_percentiles_scatter(memory: float) -> None:
    noise = signal.lfilter([math.sqrt(1 - memory**2)], [1, -memory], GENERATOR.standard_normal((400, 1500)))[:, 500:]
    samples = 100 + noise
    scatter = 1.96 * np.std(np.quantile(samples, [0.5, 0.99], axis=1, method="inverted_cdf"), axis=1)
    widths = np.mean([half_widths(one, [0.5, 0.99]) for one in samples[:40]], axis=0)
    assert widths * np.array([100, 102.33]) == pytest.approx(scatter, rel=0.25)
