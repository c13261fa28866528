"""What every place where cells can run has in common: it runs a supply of cells and tells what happens to them."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.datasets.cache import Cache
from bench.execution.events import Assignment, Ended, Event
from bench.execution.supply import Supply
from bench.machine.devices import Slot
from bench.machine.memory import forget_peak, peak_memory

if TYPE_CHECKING:  # they load torch, which a starting worker must not do before it has set its threads
    from collections.abc import Callable

    from methods.detector import Progress
    from results.record import Failure, Record
    from results.store import Draft


class CellSource(Protocol):
    """What an engine takes its cells from; :class:`bench.execution.supply.Supply` shares them with other runs."""

    @property
    def is_open(self) -> bool:
        """Whether there are cells that are neither recorded nor handed out."""

    @property
    def held_elsewhere(self) -> int:
        """How many of them other runs hold, as far as is known."""

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

    def run(self, supply: Supply) -> Generator[Event]:
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
        forget_peak()
        try:
            kept = None if self.oracle else self.kept.get(cell.fit_key)
            result = run_cell(cell, slot, self.cache, report, kept, oracle=self.oracle)
        except Exception as error:
            with suppress(OSError):  # the disk is full
                traceback.print_exc()
            return self.record_failure(assignment, slot, failure_of(error))
        fields = {**self._fields(assignment, slot), "peak_memory": peak_memory()}
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

        return {**cell_fields(assignment.cell, slot, self.command), "interrupted": list(assignment.interrupted)}
