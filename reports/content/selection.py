"""Which records a report is made of: of each cell one, all of a scenario on the same files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reports.content.variants import Variant, identify, label_variants
from reports.content.vocabulary import is_saturated
from reports.errors import ReportError
from results.record import Collection, Record
from results.store import RunStore, safe_name


@dataclass(frozen=True)
class Result:
    """One cell as the report sees it.

    Attributes:
        record: Its outcome.
        variant: The row that it belongs to.
        directory: Where its arrays are; ``None`` if nowhere.
    """

    record: Record
    variant: Variant
    directory: Path | None

    @property
    def ok(self) -> bool:
        """Whether it has metrics."""
        return self.record.status == "ok"


@dataclass(frozen=True)
class Part:
    """The scenarios of one collection that are evaluated alike.

    Attributes:
        collection: The collection; of one with scenarios of both forms, its number of scenarios is that of this form,
            which is known only if all its scenarios are there.
        title: Its title; of a collection with scenarios of both forms, with a word on which these are.
        stem: Of file names, unique in the report.
        results: Of these scenarios, in the order of the selection.
    """

    collection: Collection
    title: str
    stem: str
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Selection:
    """The results of a report in their final order, and what was left out.

    Attributes:
        results: By collection (real ones first), scenario, row and seed.
        left_out: One sentence per reason why records are not among them.
    """

    results: tuple[Result, ...]
    left_out: tuple[str, ...]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Every collection; in two parts if only some of its scenarios have saturation thresholds."""
        collections = {result.record.collection.name: result.record.collection for result in self.results}
        stems = unique_stems(collections)
        return tuple(part for name, collection in collections.items() for part in self._parts(collection, stems[name]))

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every row, once, in the order of the tables."""
        return tuple(sorted({result.variant for result in self.results}, key=_variant_order))

    def _parts(self, collection: Collection, stem: str) -> list[Part]:
        results = tuple(result for result in self.results if result.record.collection.name == collection.name)
        saturated = {result.record.scenario for result in results if is_saturated(result.record.metrics)}
        plain = tuple(result for result in results if result.record.scenario not in saturated)
        # A scenario of which every cell failed does not show its form.
        if not saturated or not any(result.ok for result in plain):
            return [Part(collection, collection.title, stem, results)]
        rest = tuple(result for result in results if result.record.scenario in saturated)
        complete = len({result.record.scenario for result in results}) == collection.scenarios
        in_plain, in_rest = (
            collection.model_copy(
                update={"scenarios": len({result.record.scenario for result in own}) if complete else None}
            )
            for own in (plain, rest)
        )
        return [
            Part(in_plain, f"{collection.title} (plain)", stem, plain),
            Part(in_rest, f"{collection.title} (saturated)", f"{stem}-saturated", rest),
        ]


NO_RESULTS = Selection((), ())


def unique_stems(names: Iterable[str]) -> dict[str, str]:
    """Give each name a file name of its own, harmless and as like it as can be."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        stem = first = safe_name(name)
        number = 2
        # Some file systems do not tell upper from lower case.
        while stem.casefold() in taken:
            stem, number = f"{first}-{number}", number + 1
        taken.add(stem.casefold())
        stems[name] = stem
    return stems


def read_runs(runs: Sequence[Path], *, any_files: bool = False) -> Selection:
    """Select from all records of some run folders.

    Args:
        runs: Run folders.
        any_files: As for :func:`select`.

    Raises:
        ReportError: There is no record in them.
        results.errors.ResultError: A record cannot be read.
    """
    stored: list[tuple[Record, Path | None]] = []
    for run in runs:
        store = RunStore(run)
        records = store.records()
        if not records:
            raise ReportError(f"no records in {run}; give the folder that `bench run --out` wrote, or run it first")
        stored += [(record, store.cell_directory(record)) for record in records]
    return select(stored, any_files=any_files)


def select(stored: Iterable[tuple[Record, Path | None]], *, any_files: bool = False) -> Selection:
    """Choose one record per row, scenario and seed, all of a scenario on the same files.

    Of the same cell the newest record counts; of a scenario whose files changed, the cells on the newest files.

    Args:
        stored: Records and the folders of their arrays.
        any_files: Leave no cell out because it ran on other files of a scenario than the newest.
    """
    by_key: dict[str, tuple[Record, Path | None]] = {}
    for record, directory in sorted(stored, key=lambda pair: (pair[0].status == "ok", pair[0].created)):
        by_key[record.key] = (record, directory)
    newest_first = sorted(by_key.values(), key=lambda pair: (pair[0].created, pair[0].key), reverse=True)
    identities = identify([record for record, _ in newest_first])
    fingerprints: dict[tuple[str, str], str] = {}
    chosen: dict[tuple[str, str, str, int], tuple[Record, Path | None]] = {}
    changed = repeated = 0
    for record, directory in newest_first:
        scenario = (record.collection.name, record.scenario)
        if record.data is not None:
            current = fingerprints.setdefault(scenario, record.data.fingerprint)
            if record.data.fingerprint != current and not any_files:
                changed += 1
                continue
        place = (identities[record.key], *scenario, record.seed)
        if place in chosen:
            repeated += 1
            continue
        chosen[place] = (record, directory)
    # A row is described by its cells that worked: those that failed may not know their weights.
    known_last = sorted(chosen.values(), key=lambda pair: (pair[0].status == "ok", pair[0].key))
    left_out = []
    if repeated:
        left_out.append(f"{repeated} older records of cells that ran again are left out.")
    if changed:
        left_out.append(f"{changed} records measured on other files of a scenario than the newest are left out.")
    variants = label_variants({identities[record.key]: record for record, _ in known_last})
    results = [Result(record, variants[identities[record.key]], directory) for record, directory in chosen.values()]
    return Selection(tuple(sorted(results, key=_order)), tuple(left_out))


def _variant_order(variant: Variant) -> tuple[str, str, int]:
    return variant.title.casefold(), variant.method, variant.number


def _order(result: Result) -> tuple[object, ...]:
    collection = result.record.collection
    # What ranks nothing comes after what does.
    first = (collection.note is not None, collection.title.casefold(), collection.name)
    return (*first, result.record.scenario, *_variant_order(result.variant), result.record.seed)
