"""What goes into the place where cells run, an assignment at a time, and what comes out of it: events."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.machine.devices import Slot

if TYPE_CHECKING:  # they load torch, which a starting worker must not do before it has set its threads
    from bench.cells import Cell
    from methods.detector import Progress
    from results.record import Record


@dataclass(frozen=True, eq=False)
class Assignment:
    """A cell that this run has claimed.

    Attributes:
        cell: The cell.
        token: Tells the claims of one cell apart.
        superseded: A file from whose existence on another run has taken the cell over.
        replaces: Whether the cell has a record that a new one is to replace.
        interrupted: Why earlier attempts have left no record, one line each.
        deaths: How many of them this run has lost.
    """

    cell: "Cell"
    token: str
    superseded: Path | None = None
    replaces: bool = False
    interrupted: tuple[str, ...] = ()
    deaths: int = 0

    def after(self, reason: str) -> "Assignment":
        """The same once more after its process has died."""
        return replace(self, interrupted=(*self.interrupted, reason), deaths=self.deaths + 1)


@dataclass(frozen=True, eq=False)
class Started:
    """A worker has begun a cell; on the node of that name, where it may be another than this."""

    slot: Slot
    cell: "Cell"
    node: str = ""


@dataclass(frozen=True, eq=False)
class Progressed:
    """A cell has come this far."""

    slot: Slot
    cell: "Cell"
    progress: "Progress"


@dataclass(frozen=True, eq=False)
class Interrupted:
    """The process or node that ran a cell has died, and the cell will be run again."""

    slot: Slot
    cell: "Cell"
    reason: str


@dataclass(frozen=True, eq=False)
class Ended:
    """A cell is recorded in the run folder, whether it worked or failed; without a slot, by another run."""

    slot: Slot | None
    cell: "Cell"
    record: "Record"


@dataclass(frozen=True)
class Waiting:
    """Nothing is left to run here but cells that other runs hold, which may yet die: so many."""

    cells: int


Event = Started | Progressed | Interrupted | Ended | Waiting
