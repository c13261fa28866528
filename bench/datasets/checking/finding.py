"""What a check finds, in words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.datasets.catalogue import KnownCollection
from bench.datasets.scenario import Scenario

_SHOWN = 3
"""Names in a line of text; a finding has all."""


@dataclass(frozen=True)
class Finding:
    """One difference or oddity.

    Attributes:
        kind: What it is of, in two or three words.
        text: What was seen and what would be right.
        fix: What to do; empty where nothing is to be done.
        problem: It differs from what was published, or contradicts itself; else it is worth knowing.
        files: Concerned, relative to the scenario's folder.
    """

    kind: str
    text: str
    fix: str = ""
    problem: bool = True
    files: tuple[str, ...] = ()


def images_of(scenario: Scenario) -> list[Path]:
    """Every image, without masks."""
    return [*scenario.train, *scenario.validation, *(image.path for image in scenario.test)]


def files_of(scenario: Scenario) -> list[Path]:
    """Every image and mask."""
    return [*images_of(scenario), *(mask for image in scenario.test for mask in image.masks)]


def relative_names(scenario: Scenario, paths: Iterable[Path]) -> tuple[str, ...]:
    """Paths below the scenario's folder, others whole."""
    return tuple(
        path.relative_to(scenario.folder).as_posix() if path.is_relative_to(scenario.folder) else str(path)
        for path in paths
    )


def get_again(known: KnownCollection) -> str:
    """Where the published files are to be had."""
    return f"bench data get {known.name}" if known.archives else f"Get it from {known.page}"


def some(names: Iterable[object]) -> str:
    """List the first few, and how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def count(items: Sequence[object], what: str) -> str:
    """How many of what, in singular or plural."""
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def by(size: Iterable[int]) -> str:
    """Height × width."""
    return "×".join(map(str, size))
