"""Means over scenarios and seeds that never mix different scenario sets."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean, stdev

from reports.content.selection import Result
from reports.content.variants import Variant
from reports.content.vocabulary import percent

Place = tuple[str, int]
"""Scenario and seed."""

_SHOWN = 3
"""So many scenarios are named for a reason that they share."""


@dataclass(frozen=True)
class Mean:
    """A mean over scenarios, and its spread over seeds.

    Attributes:
        value: Mean over the seeds of the mean over the scenarios; ``None`` if no cell has a value.
        deviation: Sample standard deviation over the seeds of the mean over the scenarios; ``None`` for one seed.
        coverage: The cells averaged: every scenario with every seed.
    """

    value: float | None
    deviation: float | None
    coverage: frozenset[Place]

    @property
    def scenarios(self) -> int:
        """How many scenarios the mean is over."""
        return len({scenario for scenario, _ in self.coverage})

    @property
    def seeds(self) -> int:
        """How many seeds the mean is over."""
        return len({seed for _, seed in self.coverage})


@dataclass(frozen=True)
class Row:
    """One method's results on a set of scenarios.

    Attributes:
        variant: The method in its configuration.
        coverage: The cells that count: every scenario with every seed.
        means: By metric, each over ``coverage`` or, where undefined in a part of it, over the rest.
        results: All of the row, failed ones too.
    """

    variant: Variant
    coverage: frozenset[Place]
    means: dict[str, Mean]
    results: tuple[Result, ...]

    @property
    def failed(self) -> int:
        """How many cells failed."""
        return sum(not result.ok for result in self.results)

    def undefined(self, metric: str) -> str:
        """Say why ``metric`` has no value in a part of the coverage."""
        scenarios: dict[str, list[str]] = {}
        for result in self.results:
            reason = result.record.undefined.get(metric)
            if reason is not None and result.record.scenario not in scenarios.setdefault(reason, []):
                scenarios[reason].append(result.record.scenario)
        if scenarios:
            return "; ".join(sorted(f"{_some(names)}: {reason}" for reason, names in scenarios.items()))
        return "every cell failed" if not any(result.ok for result in self.results) else "not measured"


def _some(names: Sequence[str]) -> str:
    others = len(names) - _SHOWN
    return ", ".join(names) if others <= 1 else f"{', '.join(names[:_SHOWN])} and {others} others"


def aggregate(results: Sequence[Result], metrics: Sequence[str]) -> list[Row]:
    """Average the cells of some scenarios of one collection, per row of the tables and in their order."""
    by_variant: dict[Variant, list[Result]] = {}
    for result in results:
        by_variant.setdefault(result.variant, []).append(result)
    ordered = sorted(by_variant.items(), key=lambda item: (item[0].title.casefold(), item[0].method, item[0].number))
    return [_row(variant, tuple(own), metrics) for variant, own in ordered]


def _row(variant: Variant, results: tuple[Result, ...], metrics: Sequence[str]) -> Row:
    coverage = complete_grid([(result.record.scenario, result.record.seed) for result in results if result.ok])
    means = {}
    for metric in metrics:
        values = {
            (result.record.scenario, result.record.seed): value
            for result in results
            if (value := result.record.metrics.get(metric)) is not None
        }
        means[metric] = _mean({place: value for place, value in values.items() if place in coverage})
    return Row(variant, coverage, means, results)


def _mean(values: dict[Place, float]) -> Mean:
    coverage = complete_grid(values)
    if not coverage:
        return Mean(None, None, coverage)
    by_seed: dict[int, list[float]] = {}
    # In any order: the sums are exact.
    for place in coverage:
        by_seed.setdefault(place[1], []).append(values[place])
    per_seed = [fmean(scenarios) for scenarios in by_seed.values()]
    return Mean(fmean(per_seed), stdev(per_seed) if len(per_seed) > 1 else None, coverage)


def complete_grid(places: Iterable[Place]) -> frozenset[Place]:
    """Choose scenarios and seeds of which every combination is there, so that each seed averages the same scenarios.

    Either the scenarios that lack a seed are left out, or the seeds that lack a scenario: whichever keeps more cells,
    and all scenarios if that is the same. May be empty though there are cells.
    """
    there = frozenset(places)
    scenarios = {scenario for scenario, _ in there}
    seeds = {seed for _, seed in there}
    if len(there) == len(scenarios) * len(seeds):
        return there
    whole_scenarios = {scenario for scenario in scenarios if all((scenario, seed) in there for seed in seeds)}
    whole_seeds = {seed for seed in seeds if all((scenario, seed) in there for scenario in scenarios)}
    if len(whole_scenarios) * len(seeds) > len(scenarios) * len(whole_seeds):
        return frozenset(product(whole_scenarios, seeds))
    return frozenset(product(scenarios, whole_seeds))


def compared(rows: Sequence[Row]) -> list[bool]:
    """Tell which rows may be compared: those that share scenarios, seeds, protocol and train scale.

    Of the groups of such rows the largest is chosen, then the one with the widest coverage, then the first.
    """
    return _largest_group(
        [(row.coverage, row.variant.protocol_hash, row.variant.train_scale) if row.coverage else None for row in rows],
        [len(row.coverage) for row in rows],
    )


def best_rows(rows: Sequence[Row], metric: str) -> list[bool]:
    """Tell which rows hold the best value of ``metric``, as printed, among at least two compared ones."""
    allowed = compared(rows)
    means = [row.means[metric] for row in rows]
    keys = [mean.coverage if allow and mean.coverage else None for mean, allow in zip(means, allowed, strict=True)]
    group = _largest_group(keys, [len(mean.coverage) for mean in means])
    # Values that print alike are alike: no row wins by a digit that nobody sees.
    printed = [
        float(percent(mean.value)) if member and mean.value is not None else None
        for mean, member in zip(means, group, strict=True)
    ]
    values = [value for value in printed if value is not None]
    if len(values) < 2:
        return [False] * len(rows)
    return [value == max(values) for value in printed]


def _largest_group(keys: Sequence[Hashable | None], sizes: Sequence[int]) -> list[bool]:
    counts = Counter(key for key in keys if key is not None)
    if not counts:
        return [False] * len(keys)
    size_of = dict(zip(keys, sizes, strict=True))
    best = max(counts, key=lambda key: (counts[key], size_of[key]))
    return [key == best for key in keys]
