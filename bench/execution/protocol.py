"""What every place where cells can run has in common: cells go in, events come out."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.datasets.cache import Cache
from bench.machine.devices import Slot

if TYPE_CHECKING:  # they load torch, which a starting worker must not do before it has set its threads
    from collections.abc import Callable

    from bench.cells import Cell
    from methods.detector import Progress
    from results.record import Failure, Record
    from results.store import Draft


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


Event = Started | Progressed | Interrupted | Ended


class CellSource(Protocol):
    """What an engine takes its cells from; :class:`bench.execution.supply.Supply` shares them with other runs."""

    @property
    def is_open(self) -> bool:
        """Whether there are cells that are neither recorded nor handed out."""

    def take(self) -> Assignment | None:
        """The next cell; ``None`` if there is none to be had at present."""

    def recorded_elsewhere(self) -> Iterator[Ended]:
        """The cells that turned out to be recorded by others."""

    def ended(self, assignment: Assignment) -> None:
        """Say that a cell has its record."""

    def retry(self, assignment: Assignment, failure: "Failure") -> bool:
        """Hand a cell out again whose process or node died, if that is not too often; return whether it will be."""


class Engine(Protocol):
    """A place where cells run."""

    def run(self, supply: CellSource) -> Generator[Event]:
        """Run cells until all are recorded, and yield what happens to them; each ends once.

        When the iterator is closed or an exception passes through, the cells that are running are given up.

        Raises:
            ResultError: A record cannot be written, for example because the disk is full.
        """


@dataclass(frozen=True)
class CellTask:
    """What is done with each cell, in whatever process: run it, and record what comes of it.

    Attributes:
        root: The run folder.
        command: The command that the records name.
        cache: Where decoded images are kept.
        keep_maps: Keep the anomaly maps beside each record.
        keep_models: Keep the fitted detector beside each record.
        oracle: Evaluate every epoch's state of a fit, too, beside each record.
        kept: Folders of models that are taken instead of a fit, by their fit key.
    """

    root: Path
    command: str
    cache: Cache
    keep_maps: bool = False
    keep_models: bool = False
    oracle: bool = False
    kept: Mapping[str, Path] = field(default_factory=dict)

    def run(self, assignment: Assignment, slot: Slot, report: "Callable[[Progress], None]") -> "Record":
        """Run a cell; whatever ends it becomes a failed record, and its traceback is printed.

        Returns:
            The record that the cell has by now: another run may have been first.

        Raises:
            ResultError: The record, or an array beside it, cannot be written.
        """
        import traceback

        from bench.cell import run_cell
        from bench.recording import failure_of, record_cell

        cell, draft = assignment.cell, self._draft(assignment)
        try:
            kept = None if self.oracle else self.kept.get(cell.fit_key)
            result = run_cell(cell, slot, self.cache, report, kept, oracle=self.oracle)
        except Exception as error:
            with suppress(OSError):  # the disk is full
                traceback.print_exc()
            return self.record_failure(assignment, slot, failure_of(error))
        fields = self._fields(assignment, slot)
        return record_cell(draft, cell, fields, result, keep_maps=self.keep_maps, keep_model=self.keep_models)

    def record_failure(self, assignment: Assignment, slot: Slot, failure: "Failure") -> "Record":
        """Record why a cell has no metrics, in the process that ran it or, if that has died, in another.

        Returns:
            The record that the cell has by now: another run may have been first.

        Raises:
            ResultError: The record cannot be written.
        """
        from bench.recording import record_failure

        return record_failure(self._draft(assignment), self._fields(assignment, slot), failure)

    def record_files(self, assignment: Assignment, files: Mapping[str, bytes]) -> "Record":
        """Record a cell that has run on another host, which has sent the files of its folder, by name.

        Returns:
            The record that the cell has by now: another run may have been first.

        Raises:
            ResultError: A file cannot be written.
        """
        from bench.recording import record_files

        return record_files(self._draft(assignment), files)

    def _draft(self, assignment: Assignment) -> "Draft":
        from results.store import RunStore

        return RunStore(self.root).draft(
            assignment.cell.id,
            assignment.token,
            replaces=assignment.replaces,
            superseded=assignment.superseded,
        )

    def _fields(self, assignment: Assignment, slot: Slot) -> "Mapping[str, object]":
        from bench.recording import cell_fields

        fields = cell_fields(assignment.cell, slot, self.command)
        return {**fields, "interrupted": list(assignment.interrupted)}
