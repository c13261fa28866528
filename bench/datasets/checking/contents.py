"""Names and contents of images against each other."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.datasets.checking.finding import Finding, count, images_of, relative_names, some
from bench.datasets.checking.inspection import Inspected
from bench.datasets.scenario import Scenario

_PROBLEMS = 5
"""Shown one by one."""

_ODD_NAMES = 0.1
"""Share of a folder's names that may be unlike the others and be called so; more are another custom."""


def to_be_mended(scenario: Scenario) -> Iterator[Finding]:
    """Pass on what reading the names has found, of many the first."""
    for problem in scenario.problems[:_PROBLEMS]:
        yield Finding("to be mended", problem, "Restore, rename or remove it.")
    more = scenario.problems[_PROBLEMS:]
    if more:
        yield Finding("to be mended", f"{len(more)} more of this kind", "--json lists all of them.", files=more)


def unreadable_files(scenario: Scenario, inspected: Mapping[Path, Inspected]) -> Iterator[Finding]:
    """Name the images and masks that are damaged; those that are gone are among the scenario's problems already."""
    damaged = [one for one in inspected.values() if one.error and one.path.exists()]
    if damaged:
        reasons = some(f"{relative_names(scenario, [one.path])[0]}: {one.error}" for one in damaged)
        yield Finding(
            "unreadable files",
            f"{count(damaged, 'file')} cannot be read ({reasons})",
            "Unpack or download them again.",
            files=relative_names(scenario, [one.path for one in damaged]),
        )


def odd_names(scenario: Scenario, *, named_alike: bool) -> Iterator[Finding]:
    """Find names unlike the others of their folder: digits apart, all of a published folder follow one pattern."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in images_of(scenario):
        folders[path.parent].append(path)
    odd = []
    for paths in folders.values():
        patterns = Counter(map(_pattern, paths))
        (common, frequent), *_ = patterns.most_common()
        if 0 < len(paths) - frequent <= max(1, _ODD_NAMES * len(paths)) and len(paths) > 2:
            odd += [path for path in paths if _pattern(path) != common]
    if odd:
        names = relative_names(scenario, odd)
        yield Finding(
            "renamed files",
            f"{count(odd, 'name')} unlike the others in the folder: {some(names)}",
            "Give the files their own names again." if named_alike else "",
            problem=named_alike,
            files=names,
        )


def _pattern(path: Path) -> str:
    return re.sub(r"\d+", "#", path.stem) + path.suffix


def bit_depths(scenario: Scenario, inspected: Mapping[Path, Inspected]) -> Iterator[Finding]:
    """Find images of another bit depth than the most, and say where gray ones stand among coloured ones."""
    images = [inspected[path] for path in images_of(scenario) if not inspected[path].error]
    by_bits = Counter(one.bits for one in images)
    if len(by_bits) > 1:
        common = by_bits.most_common(1)[0][0]
        odd = [one.path for one in images if one.bits != common]
        names = relative_names(scenario, odd)
        yield Finding(
            "mixed bit depths",
            f"{count(odd, 'image')} of {some(sorted(set(by_bits) - {common}))} bits among {by_bits[common]} of "
            f"{common}: {some(names)}",
            "Store all images of a scenario with one bit depth.",
            files=names,
        )
    by_mode = Counter(one.mode for one in images)
    if len(by_mode) > 1 and len(by_bits) == 1:
        counted = ", ".join(f"{count} {mode}" for mode, count in by_mode.most_common())
        yield Finding("mixed colours", f"images of several kinds: {counted}", problem=False)


def turned_images(scenario: Scenario, inspected: Mapping[Path, Inspected]) -> Iterator[Finding]:
    """Say which images are not stored upright."""
    turned = [path for path in images_of(scenario) if inspected[path].turned]
    if turned:
        names = relative_names(scenario, turned)
        text = f"{count(turned, 'image')} turned as EXIF says, masks as they say themselves: {some(names)}"
        yield Finding("turned images", text, problem=False, files=names)


def duplicates(scenario: Scenario, inspected: Mapping[Path, Inspected]) -> Iterator[Finding]:
    """Find images with the same content: in training and test set, under two labels, or twice in one place."""
    roles = dict.fromkeys((*scenario.train, *scenario.validation), "training images")
    roles |= {image.path: "anomalous" if image.anomalous else "normal" for image in scenario.test}
    readable = [path for path in roles if not inspected[path].error]
    copies: dict[str, list[Path]] = defaultdict(list)
    for path, digest in zip(readable, scenario.cache.digests(readable), strict=True):
        copies[digest].append(path)
    across = [paths for paths in copies.values() if len({roles[path] for path in paths}) > 1]
    within = [paths for paths in copies.values() if len(paths) > 1 and paths not in across]
    for kind, groups, problem, what in (
        ("duplicates across sets", across, True, "in several of training set, normal and anomalous test images"),
        ("duplicates", within, False, "twice or more in one set"),
    ):
        if groups:
            names = [" = ".join(relative_names(scenario, paths)) for paths in groups]
            fix = "Remove the copies: a detector has seen what it is tested on." if problem else ""
            yield Finding(
                kind, f"{count(groups, 'image')} {what}: {some(names)}", fix, problem=problem,
                files=relative_names(scenario, [path for paths in groups for path in paths]),
            )  # fmt: skip
