"""The order in which cells are handed out, and parts of them for machines that do not know of each other."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.cells import Cell

LAST = 4
"""So many cells per slot, at the end, go by their length alone."""


def groups_in_order(cells: "Sequence[Cell]", expected: "Callable[[Cell], float]", slots: int) -> "list[list[Cell]]":
    """Scenario by scenario, so that each is decoded once; at the end the longest cells first, so that no slot idles.

    Args:
        cells: Scenario by scenario.
        expected: Seconds, or anything in proportion, that a cell is expected to take.
        slots: How many cells run at a time.

    Returns:
        Groups of cells that are best run in one place.
    """
    groups = [list(group) for _, group in groupby(cells, key=lambda cell: cell.scenario.id)]
    last: list[Cell] = []
    while groups and slots > 1 and len(last) < LAST * slots:
        last += groups.pop()
    longest_first = [sorted(group, key=expected, reverse=True) for group in groups]
    return [*longest_first, sorted(last, key=expected, reverse=True)] if last else longest_first


def part_of(cells: "Sequence[Cell]", shard: str | None) -> "Sequence[Cell]":
    """One of several parts of the cells, which together are all of them and do not overlap.

    Parts are contiguous, so that few of them share a scenario, and differ by at most one cell.

    Args:
        cells: Scenario by scenario.
        shard: ``i/n`` for the i-th of n parts; ``None`` for all cells.

    Raises:
        UsageError: There is no such part.
    """
    if shard is None:
        return cells
    number, parts = map(int, shard.split("/"))
    if not 1 <= number <= parts <= len(cells):
        raise UsageError(
            f"there is no part {shard} of {len(cells)} cells\n"
            f"  Allowed: --shard 1/n to n/n, with n from 1 to {len(cells)}."
        )
    return cells[(number - 1) * len(cells) // parts : number * len(cells) // parts]
