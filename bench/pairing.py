"""Which rows of a run two names mean, and which of their results were measured on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.errors import DataError, UsageError, unknown_name
from reports.content.selection import Part, Result
from reports.content.variants import Variant


@dataclass(frozen=True)
class Pair:
    """The results of two rows on one scenario, of the same seeds in the same order.

    Attributes:
        first: Of the one row, at least one.
        second: Of the other, as many.
        halves: What the kinds of anomalies are called that are evaluated apart; empty if none are.
    """

    first: tuple[Result, ...]
    second: tuple[Result, ...]
    halves: tuple[str, ...]

    @property
    def scenario(self) -> str:
        """Name of the scenario within its collection."""
        return self.first[0].record.scenario

    @property
    def name(self) -> str:
        """Collection and scenario, as ``--datasets`` takes them."""
        return f"{self.first[0].record.collection.name}/{self.scenario}"

    def kind(self, defect: str) -> int:
        """Number of the half that a folder of anomalous images belongs to, from 1; 1 where there are no halves."""
        return next((number for number, half in enumerate(self.halves, start=1) if defect.startswith(half)), 1)


def find_row(variants: Sequence[Variant], name: str) -> Variant:
    """Find a row by its label in the tables, or by its method if that has but one row, or by ``method#number``.

    Raises:
        UsageError: There is none, or there are several; the message lists the choices.
    """

    def plain(text: str) -> str:
        return text.casefold().replace(" ", "")

    exact = [variant for variant in variants if plain(name) in (plain(variant.label), _short_name(variant))]
    matching = exact or [variant for variant in variants if plain(name) in (variant.method, plain(variant.title))]
    if not matching:
        raise unknown_name("row", name, [_short_name(variant) for variant in variants])
    if len(matching) > 1:
        choices = "".join(
            f"\n  {_short_name(variant)}: {variant.label}, train scale {variant.train_scale:g}"
            f"{''.join(f', {note}' for note in variant.notes)}"
            for variant in matching
        )
        raise UsageError(f"{name!r} means {len(matching)} rows; name one of{choices}")
    return matching[0]


def _short_name(variant: Variant) -> str:
    return f"{variant.method}#{variant.number}" if variant.number else variant.method


def check_rows(first: Variant, second: Variant) -> None:
    """Refuse rows that were not trained and measured by the same rules.

    Raises:
        UsageError: Their protocols or train scales differ.
    """
    for rule, values in {
        "protocols": (first.protocol_hash, second.protocol_hash),
        "train scales": (f"{first.train_scale:g}", f"{second.train_scale:g}"),
    }.items():
        if values[0] != values[1]:
            raise UsageError(
                f"rows of different {rule} are not compared: {first.label} has {values[0]}, {second.label} "
                f"{values[1]}; run both with the same {rule.removesuffix('s')}"
            )


def pair_results(part: Part, first: Variant, second: Variant) -> tuple[list[Pair], list[str]]:
    """Pair the results of equal scenario and seed.

    Returns:
        The pairs by scenario, and a phrase for each scenario where one row has seeds that the other lacks.

    Raises:
        DataError: Some were measured on different files.
    """
    pairs, alone = [], []
    for scenario in sorted({result.record.scenario for result in part.results}):
        of = {
            variant: {
                result.record.seed: result
                for result in part.results
                if result.variant == variant and result.record.scenario == scenario
            }
            for variant in (first, second)
        }
        seeds = sorted(of[first].keys() & of[second].keys())
        for variant in dict.fromkeys((first, second)):
            if rest := sorted(of[variant].keys() - set(seeds)):
                alone.append(f"{scenario}, {_seeds(rest)}: only {variant.label}")
        if seeds:
            names = of[first][seeds[0]].record.metrics
            halves = dict.fromkeys(name.partition("/")[0] for name in names if "/" in name)
            one, other = (tuple(of[variant][seed] for seed in seeds) for variant in (first, second))
            pair = Pair(one, other, tuple(halves))
            _check_images(pair)
            pairs.append(pair)
    return pairs, alone


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _check_images(pair: Pair) -> None:
    records = [result.record for result in (*pair.first, *pair.second)]
    fingerprints = sorted({record.data.fingerprint[:12] if record.data else "unknown" for record in records})
    names = {tuple((image.name, image.defect, image.anomalous) for image in record.images) for record in records}
    if len(fingerprints) > 1 or len(names) > 1:
        raise DataError(
            f"{pair.name}: the cells were measured on different files, fingerprints {' and '.join(fingerprints)}; only "
            "on the same images are rows compared: run both again on the files that are there now"
        )
