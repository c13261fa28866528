"""A scenario or a collection compared with the catalogue, and with itself."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.datasets.catalogue import KnownCollection, known_by_folder, known_collection
from bench.datasets.checking.contents import (
    bit_depths,
    duplicates,
    odd_names,
    to_be_mended,
    turned_images,
    unreadable_files,
)
from bench.datasets.checking.counts import compare_counts, compare_sizes, familiar_name
from bench.datasets.checking.finding import Finding, files_of, get_again, some
from bench.datasets.checking.ground_truth import mask_contents, missing_masks
from bench.datasets.checking.inspection import inspect_files
from bench.datasets.scenario import Scenario


@dataclass(frozen=True)
class Check:
    """What was found of one scenario, or of a collection as a whole.

    Attributes:
        name: ``collection/scenario``, or the collection.
        folder: Where it lies.
        compared_with: Title of the published collection; empty for one's own.
        findings: Problems first.
    """

    name: str
    folder: Path
    compared_with: str
    findings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        """Nothing is a problem."""
        return not any(finding.problem for finding in self.findings)


def check_scenario(scenario: Scenario) -> Check:
    """Compare names, counts, sizes, masks and contents of a scenario with the catalogue and with each other.

    Every file is read once to its end, on all cores.

    Raises:
        DataError: A folder may not be listed.
    """
    known = published_collection(scenario)
    published = known.images.get(scenario.name) if known else None
    inspected = inspect_files(files_of(scenario))
    findings: list[Finding] = []
    if known is None:
        findings += familiar_name(scenario)
    elif published is None:
        text = f"{known.title} has no scenario {scenario.name}: its numbers stand apart from the collection's"
        findings.append(Finding("unknown scenario", text, problem=False))
    else:
        findings += compare_counts(scenario, known, published)
        findings += compare_sizes(scenario, published, inspected)
    findings += to_be_mended(scenario)
    findings += unreadable_files(scenario, inspected)
    findings += odd_names(scenario, named_alike=known is not None)
    findings += bit_depths(scenario, inspected)
    findings += turned_images(scenario, inspected)
    findings += missing_masks(scenario, known)
    findings += mask_contents(scenario, inspected)
    findings += duplicates(scenario, inspected)
    findings += [Finding("left out", note, problem=False) for note in scenario.notes]
    findings.sort(key=lambda finding: not finding.problem)
    return Check(scenario.id, scenario.folder, known.title if known else "", tuple(findings))


def check_collection(known: KnownCollection, folder: Path, scenarios: Collection[str]) -> Check | None:
    """Name the published scenarios that a collection lacks; ``None`` if it has all."""
    missing = [name for name in known.images if name not in scenarios]
    if not missing:
        return None
    text = f"{len(known.images) - len(missing)} of {len(known.images)} scenarios; {some(missing)} missing"
    finding = Finding("missing scenarios", text, get_again(known), files=tuple(missing))
    return Check(known.name, folder, known.title, (finding,))


def published_collection(scenario: Scenario) -> KnownCollection | None:
    """The published collection that a scenario claims to be of: by its collection's name, or its own folder's."""
    return known_collection(scenario.collection.name.removesuffix("_other")) or known_by_folder(scenario.folder)
