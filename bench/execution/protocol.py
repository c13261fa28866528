"""What every place where cells can run has in common: cells go in, events come out."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bench.datasets.cache import Cache
from bench.machine.devices import Slot

if TYPE_CHECKING:  # they load torch, which a starting worker must not do before it has set its threads
    from collections.abc import Callable

    from bench.cells import Cell
    from methods.detector import Progress
    from results.record import Failure, Record


@dataclass(frozen=True, eq=False)
class Started:
    """A worker has begun a cell."""

    slot: Slot
    cell: "Cell"


@dataclass(frozen=True, eq=False)
class Progressed:
    """A cell has come this far."""

    slot: Slot
    cell: "Cell"
    progress: "Progress"


@dataclass(frozen=True, eq=False)
class Ended:
    """A cell is recorded in the run folder, whether it worked or failed."""

    slot: Slot
    cell: "Cell"
    record: "Record"


Event = Started | Progressed | Ended


class Executor(Protocol):
    """A place where cells run."""

    def run(self, cells: "Sequence[Cell]") -> Generator[Event]:
        """Run the cells and yield what happens to them; each ends once.

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

    def run(self, cell: "Cell", slot: Slot, report: "Callable[[Progress], None]") -> "Record":
        """Run a cell; whatever ends it becomes a failed record, and its traceback is printed.

        Raises:
            ResultError: The record, or an array beside it, cannot be written.
        """
        import traceback

        from bench.cell import run_cell
        from bench.recording import cell_fields, failure_of, record_cell, record_failure
        from results.store import RunStore

        store, fields = RunStore(self.root), cell_fields(cell, slot, self.command)
        try:
            kept = None if self.oracle else self.kept.get(cell.fit_key)
            result = run_cell(cell, slot, self.cache, report, kept, oracle=self.oracle)
        except Exception as error:
            with suppress(OSError):  # the disk is full
                traceback.print_exc()
            return record_failure(store, fields, failure_of(error))
        return record_cell(store, cell, fields, result, keep_maps=self.keep_maps, keep_model=self.keep_models)

    def record_death(self, cell: "Cell", slot: Slot, failure: "Failure") -> "Record":
        """Record a cell whose process has died before it could.

        Raises:
            ResultError: The record cannot be written.
        """
        from bench.recording import cell_fields, record_failure
        from results.store import RunStore

        return record_failure(RunStore(self.root), cell_fields(cell, slot, self.command), failure)
