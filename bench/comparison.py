"""Whether two rows of a run differ: paired, on the same test images, from what is stored of them alone."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bench.errors import DataError, UsageError
from bench.pairing import Pair, check_rows, find_row, pair_results
from metrics import (
    Interval,
    MetricError,
    compare_images,
    compare_regions,
    false_negative_rates,
    image_p_value,
    mean_interval,
    region_p_value,
)
from reports.content.selection import Result, Selection, read_runs
from reports.content.tables import stamps
from reports.content.variants import Variant
from reports.content.vocabulary import is_saturated
from results.regions import RegionResult, read_regions

FALSE_POSITIVE_RATES = (0.0, 0.01, 0.05)
FEWEST_SCENARIOS = 6
"""With fewer of them no outcome of the test over scenarios is below 0.05: with five, two of 2^5 outcomes are 0.0625."""
FEWEST_RESAMPLES = 100
_IMAGE_METRIC = "image_au_roc"
_REGION_METRICS = {False: "au_pro@0.3", True: "au_spro@0.05"}
_SAME = 1e-6


@dataclass(frozen=True)
class Resampling:
    """How intervals and p-values are computed.

    Attributes:
        level: Of the intervals, in (0, 1).
        resamples: Of the bootstrap, and exchanges of a test; at least 100.
        seed: Of both.

    Raises:
        UsageError: A number is out of range.
    """

    level: float = 0.95
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise UsageError(f"--level is {self.level:g}; allowed: between 0 and 1, such as 0.95")
        if self.resamples < FEWEST_RESAMPLES:
            raise UsageError(f"--resamples is {self.resamples}; allowed: {FEWEST_RESAMPLES} or more, such as 1000")
        if self.seed < 0:
            raise UsageError(f"--seed is {self.seed}; allowed: 0 or more")


@dataclass(frozen=True)
class Difference:
    """One metric of two rows.

    Attributes:
        metric: Its name in the records.
        first: The first row's value, mean over the seeds; a fraction, ``None`` where undefined.
        second: The second row's.
        interval: Of first - second; ``None`` where it cannot be computed.
        p_value: Of the test, two-sided; ``None`` likewise.
        reason: Why interval or p-value are missing; empty if they are not.
    """

    metric: str
    first: float | None
    second: float | None
    interval: Interval | None = None
    p_value: float | None = None
    reason: str = ""

    @property
    def value(self) -> float | None:
        """How much more the first row has; ``None`` where either value is undefined."""
        return self.first - self.second if self.first is not None and self.second is not None else None


@dataclass(frozen=True)
class FalseNegatives:
    """Shares of the anomalous images that are missed, mean over the seeds.

    Attributes:
        false_positive_rate: The share of the normal images that may be called anomalous.
        first: By the first row.
        second: By the second row.
    """

    false_positive_rate: float
    first: float
    second: float


@dataclass(frozen=True)
class ScenarioComparison:
    """Two rows on one scenario.

    Attributes:
        scenario: Its name.
        seeds: Those that both rows have.
        differences: Of image AU-ROC and AU-PRO@0.3; in LOCO form of both halves and the mean, and of AU-sPRO@0.05.
        false_negatives: At several false-positive rates; empty without normal or without anomalous images.
    """

    scenario: str
    seeds: tuple[int, ...]
    differences: tuple[Difference, ...]
    false_negatives: tuple[FalseNegatives, ...]


@dataclass(frozen=True)
class PartComparison:
    """Two rows on the scenarios of one collection that are evaluated alike.

    Attributes:
        title: The collection.
        notes: What must be said of it and of the results.
        scenarios: Those that both rows have.
        means: Of each metric, over the scenarios where it is defined; empty for a single scenario.
    """

    title: str
    notes: tuple[str, ...]
    scenarios: tuple[ScenarioComparison, ...]
    means: tuple[Difference, ...]


@dataclass(frozen=True)
class Comparison:
    """Two rows of a run.

    Attributes:
        first: One of them.
        second: The other.
        resampling: How it was computed.
        parts: A collection each.
        left_out: What only one of the rows has, one phrase each.
    """

    first: Variant
    second: Variant
    resampling: Resampling
    parts: tuple[PartComparison, ...]
    left_out: tuple[str, ...]


def compare_rows(run: Path, first: str, second: str, resampling: Resampling) -> Comparison:
    """Compare two rows of a run's tables, scenario by scenario and over each collection.

    Args:
        run: A run folder.
        first: A row: its label in the tables, or its method if that has but one row, or ``method#number``.
        second: Another row, likewise.
        resampling: How intervals and p-values are computed.

    Raises:
        UsageError: A name is unknown or means several rows, the rows share no cell, or may not be compared.
        DataError: The rows were measured on different test images.
        ReportError: There is no record.
        ResultError: A record or a list of regions cannot be read.
    """
    selection = read_runs([run], any_files=True)
    one, other = (find_row(selection.variants, name) for name in (first, second))
    check_rows(one, other)
    own = tuple(result for result in selection.results if result.variant in (one, other) and result.ok)
    parts, left_out = [], []
    for part in Selection(own, ()).parts:
        pairs, alone = pair_results(part, one, other)
        left_out += alone
        scenarios = tuple(_compare_scenario(pair, resampling) for pair in pairs)
        if scenarios:
            parts.append(PartComparison(part.title, stamps(part.results), scenarios, tuple(_means(scenarios))))
    if not parts:
        raise UsageError(
            f"{one.label} and {other.label} share no scenario and seed in {run}; run both on the same ones\n"
            f"  {'; '.join(left_out) or 'Every cell of both failed'}"
        )
    return Comparison(one, other, resampling, tuple(parts), tuple(left_out))


def _compare_scenario(pair: Pair, resampling: Resampling) -> ScenarioComparison:
    region_metric = _REGION_METRICS[is_saturated(pair.first[0].record.metrics)]
    differences = [
        _difference(pair, f"{half}{metric}", compare, resampling)
        for metric, compare in ((_IMAGE_METRIC, _compare_images), (region_metric, _compare_regions))
        for half in (*(f"{half}/" for half in pair.halves), "")
    ]
    seeds = tuple(result.record.seed for result in pair.first)
    return ScenarioComparison(pair.scenario, seeds, tuple(differences), tuple(_false_negatives(pair)))


_Outcome = tuple[Interval, float]


def _difference(
    pair: Pair, metric: str, compare: Callable[[Pair, str, Resampling], _Outcome], resampling: Resampling
) -> Difference:
    first, second = (_mean_value(results, metric) for results in (pair.first, pair.second))
    if first is None or second is None:
        reasons = {
            result.record.undefined.get(metric, "not measured")
            for result in (*pair.first, *pair.second)
            if result.record.metrics.get(metric) is None
        }
        return Difference(metric, first, second, reason="; ".join(sorted(reasons)))
    try:
        interval, p_value = compare(pair, metric, resampling)
    except MetricError as error:
        return Difference(metric, first, second, reason=str(error))
    if abs(interval.value - (first - second)) > _SAME:
        raise DataError(
            f"{pair.name}: what is stored beside the records gives a difference in {metric} of {interval.value:.6f}, "
            f"the records themselves {first - second:.6f}; run these cells again"
        )
    return Difference(metric, first, second, interval, p_value)


def _mean_value(results: Iterable[Result], metric: str) -> float | None:
    values = [result.record.metrics.get(metric) for result in results]
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _seed(resampling: Resampling, pair: Pair) -> tuple[int, int]:
    # Of its own for each scenario, whatever other scenarios there are: the mean over them needs independent resamples.
    return resampling.seed, zlib.crc32(pair.name.encode())


def _compare_images(pair: Pair, metric: str, resampling: Resampling) -> _Outcome:
    half = metric.rpartition("/")[0]
    kinds = [pair.kind(image.defect) if image.anomalous else 0 for image in pair.first[0].record.images]
    chosen = [index for index, kind in enumerate(kinds) if not half or kind in (0, pair.kind(half))]
    first, second = (
        [[result.record.images[index].score for index in chosen] for result in results]
        for results in (pair.first, pair.second)
    )
    own, seed = [kinds[index] for index in chosen], _seed(resampling, pair)
    intervals = compare_images(first, second, own, resamples=resampling.resamples, level=resampling.level, seed=seed)
    return intervals[_IMAGE_METRIC], image_p_value(first, second, own, resamples=resampling.resamples, seed=seed)


def _compare_regions(pair: Pair, metric: str, resampling: Resampling) -> _Outcome:
    half, _, name = metric.rpartition("/")
    first, second = ([_regions(result, half) for result in results] for results in (pair.first, pair.second))
    identities = {tuple((region.image, region.defect, region.area) for region in own) for own in (*first, *second)}
    if len(identities) > 1:
        raise DataError(f"{pair.name}: the cells list different defect regions; run or evaluate both again")
    if not all(name in region.values for own in (*first, *second) for region in own):
        raise MetricError(f"no {name} of each region is stored")
    images = [region.image for region in first[0]]
    kinds = [pair.kind(region.defect) for region in first[0]]
    shares, others = ([[region.values[name] for region in own] for own in regions] for regions in (first, second))
    seed, resamples = _seed(resampling, pair), resampling.resamples
    interval = compare_regions(shares, others, images, kinds, resamples=resamples, level=resampling.level, seed=seed)
    return interval, region_p_value(shares, others, images, kinds, resamples=resamples, seed=seed)


def _regions(result: Result, half: str) -> list[RegionResult]:
    regions = read_regions(result.directory) if result.directory is not None else []
    if not regions:
        raise MetricError("no defect regions are stored beside the record")
    return [region for region in regions if region.defect.startswith(half)]


def _false_negatives(pair: Pair) -> Iterable[FalseNegatives]:
    anomalous = [image.anomalous for image in pair.first[0].record.images]
    if all(anomalous) or not any(anomalous):
        return
    first, second = (
        [
            false_negative_rates([image.score for image in result.record.images], anomalous, FALSE_POSITIVE_RATES)
            for result in results
        ]
        for results in (pair.first, pair.second)
    )
    for rate in FALSE_POSITIVE_RATES:
        yield FalseNegatives(rate, fmean(own[rate] for own in first), fmean(own[rate] for own in second))


def _means(scenarios: Sequence[ScenarioComparison]) -> Iterable[Difference]:
    """Average each metric over the scenarios where both its values and its interval are known."""
    if len(scenarios) < 2:
        return
    for metric in dict.fromkeys(difference.metric for scenario in scenarios for difference in scenario.differences):
        own = [
            difference
            for scenario in scenarios
            for difference in scenario.differences
            if difference.metric == metric and difference.interval is not None
        ]
        yield _mean(metric, own, len(scenarios))


def _mean(metric: str, differences: Sequence[Difference], scenarios: int) -> Difference:
    intervals = [difference.interval for difference in differences if difference.interval is not None]
    if not intervals:
        return Difference(metric, None, None, reason="undefined in every scenario")
    first, second = (
        fmean(value for value in values if value is not None)
        for values in zip(*((difference.first, difference.second) for difference in differences), strict=True)
    )
    reasons = [f"undefined in {scenarios - len(intervals)} of {scenarios} scenarios"] * (len(intervals) < scenarios)
    p_value = None
    if len(intervals) < FEWEST_SCENARIOS:
        reasons.append(f"too few scenarios for a test: {len(intervals)}, it needs {FEWEST_SCENARIOS}")
    else:
        from scipy import stats

        p_value = float(stats.wilcoxon([interval.value for interval in intervals], zero_method="zsplit").pvalue)
    return Difference(metric, first, second, mean_interval(intervals), p_value, "; ".join(reasons))
