"""The cells that a run still has to do, handed out one claim at a time to whoever asks."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.execution.claims import Claim, Claims, Holder
from bench.execution.events import Assignment, Ended

if TYPE_CHECKING:
    from bench.cells import Cell
    from results.record import Failure, Record
    from results.store import RunStore

LOOK_AGAIN = 1.0
"""Seconds between two looks at cells that other runs hold."""


@dataclass
class _Group:
    cells: "deque[Cell]"
    put_off: bool = False


class Supply:
    """Cells to run, divided among all runs that share the run folder.

    Args:
        groups: The cells, in the order in which they are to run; those of a group are best run in one place.
        before: The record that a cell has already and that a new one is to replace, by key.
        claims: Of this run.
        store: The run folder.
        retries: How often a cell is run again whose process, or node, has died.
        clock: In seconds.
    """

    def __init__(
        self,
        groups: "Sequence[Sequence[Cell]]",
        before: "Mapping[str, Record]",
        claims: Claims,
        store: "RunStore",
        retries: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._groups = deque(_Group(deque(group)) for group in groups)
        self._before = before
        self._claims = claims
        self._store = store
        self._retries = retries
        self._clock = clock
        self._held: deque[Cell] = deque()
        self._looked = -LOOK_AGAIN
        self._again: deque[Assignment] = deque()
        self._running: dict[str, Claim] = {}
        self._elsewhere: deque[Ended] = deque()

    @property
    def is_open(self) -> bool:
        """Whether there are cells that are neither recorded nor handed out, wherever they may be running."""
        return bool(self._groups or self._held or self._again or self._elsewhere)

    @property
    def held_elsewhere(self) -> int:
        """How many cells other runs hold, as far as is known."""
        return len(self._held)

    def take(self) -> Assignment | None:
        """Claim the next cell; ``None`` if there is none to be had at present.

        Raises:
            ResultError: A claim cannot be written, or a record not be read.
        """
        if self._again:
            return self._again.popleft()
        while self._groups:
            group = self._groups[0]
            if not group.cells:
                self._groups.popleft()
            elif assignment := self._claim(group.cells.popleft()):
                return assignment
        if self._clock() - self._looked >= LOOK_AGAIN:
            for _ in range(len(self._held)):
                if assignment := self._claim(self._held.popleft()):
                    return assignment
            self._looked = self._clock()
        return None

    def recorded_elsewhere(self) -> Iterator[Ended]:
        """The cells that turned out to be recorded by other runs."""
        while self._elsewhere:
            yield self._elsewhere.popleft()

    def watch(self) -> Iterator[Ended]:
        """The cells that other runs have recorded since the last look, for a run that claims none itself."""
        for group in self._groups:
            group.cells = deque(cell for cell in group.cells if not self._is_recorded(cell))
        self._groups = deque(group for group in self._groups if group.cells)
        yield from self.recorded_elsewhere()

    def unclaimed(self) -> "list[Cell]":
        """The cells without a record that this run has never claimed."""
        return [cell for group in self._groups for cell in group.cells]

    def claimed_elsewhere(self) -> "Iterator[tuple[Cell, Claim, Holder]]":
        """Those of them that another run holds, with its claim."""
        for cell in self.unclaimed():
            claim = self._claims.last(cell.id.folder)
            if claim is not None and not claim.ended and (holder := self._claims.holder(claim)) is not None:
                yield cell, claim, holder

    def ended(self, assignment: Assignment) -> None:
        """Say that a cell has its record."""
        self._claims.end(self._running.pop(assignment.cell.key))

    def retry(self, assignment: Assignment, failure: "Failure") -> bool:
        """Hand a cell out again whose process died, if that is not too often; return whether it will be."""
        if assignment.deaths >= self._retries:
            return False
        self._again.append(assignment.after(failure.reason))
        return True

    def _claim(self, cell: "Cell") -> Assignment | None:
        if self._is_recorded(cell):
            return None
        claim = self._claims.take(cell.id.folder)
        if claim is None:
            self._held.append(cell)
            self._put_off()
            return None
        if self._is_recorded(cell):  # by the run that held it a moment ago
            self._claims.end(claim)
            return None
        self._running[cell.key] = claim
        return Assignment(
            cell,
            claim.token,
            self._claims.superseding(claim),
            replaces=cell.key in self._before,
            interrupted=claim.interrupted,
        )

    def _put_off(self) -> None:
        """Let another run go on with the scenario that it has begun, while there are others."""
        group = self._groups[0] if self._groups else None
        if group is not None and not group.put_off and group.cells:
            group.put_off = True
            self._groups.rotate(-1)

    def _is_recorded(self, cell: "Cell") -> bool:
        from bench.recording import find_record

        record = find_record(self._store, cell)
        before = self._before.get(cell.key)
        if record is None or (before is not None and record.created == before.created):
            return False
        self._elsewhere.append(Ended(None, cell, record))
        return True
