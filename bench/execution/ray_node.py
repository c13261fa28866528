"""What a task of a Ray cluster does on its node: run one cell as this machine would, and send back what it has made."""

import os
import pickle
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench.errors import DataError
from bench.execution.events import Assignment, Ended, Event, Interrupted, Progressed, Started
from bench.execution.local import CellLimits, LocalWorkers
from bench.execution.protocol import CellTask
from bench.machine.devices import Slot

if TYPE_CHECKING:  # they load torch, which only the worker process needs
    from bench.cells import Cell
    from methods.detector import Progress
    from results.record import Failure, Record

_REPORT_INTERVAL = 1.0
"""Seconds between two steps of one stage that are told of."""
_REMEDY = "Put data and weights at the same paths on every node, as copies or on a file system that all nodes share."


@dataclass(frozen=True)
class Begun:
    """The cell's process has been started on the node of that name."""

    node: str


@dataclass(frozen=True)
class Again:
    """The cell's process has died, and the node runs the cell once more."""

    reason: str


@dataclass(frozen=True)
class Parcel:
    """The files of the recorded cell's folder, by name; the last message."""

    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Luggage:
    """All that a node needs to run a cell, and that Ray need not understand.

    Attributes:
        path: Where the run finds its modules.
        folder: The folder that relative paths are relative to.
        job: Cell and task, pickled: only with that path can they be unpickled.
        slot: Device and threads, as the node will see them.
        limits: Of the cell.
        retries: How often the cell is run again whose process has died.
        kept: The files of a kept model that is taken instead of a fit; ``None`` for a fit.
    """

    path: tuple[str, ...]
    folder: str
    job: bytes
    slot: Slot
    limits: CellLimits
    retries: int
    kept: Mapping[str, bytes] | None

    @classmethod
    def packed(cls, assignment: Assignment, task: CellTask, slot: Slot, limits: CellLimits, retries: int) -> "Luggage":
        """Pack a cell, from the folder that the run was started in."""
        kept = task.kept.get(assignment.cell.fit_key)
        # No path of the run folder means anything on the node.
        job = (replace(assignment, superseded=None, replaces=False), replace(task, root=Path(), kept={}))
        path = tuple(str(Path(entry).absolute()) for entry in sys.path)
        return cls(
            path, str(Path.cwd()), pickle.dumps(job), slot, limits, retries, None if kept is None else read(kept)
        )

    def unpacked(self) -> tuple[Assignment, CellTask]:
        """Cell and task, in a process that is prepared for them as the run's own worker processes are."""
        sys.path.extend(entry for entry in self.path if entry not in sys.path)
        with suppress(OSError):  # only relative paths need it
            os.chdir(self.folder)
        assignment, task = pickle.loads(self.job)
        return assignment, task


def run_here(luggage: Luggage) -> "Iterator[Begun | Again | Progress | Parcel]":
    """Run a cell in a worker process of this node, say how far it is, at last what has come of it.

    Raises:
        ResultError: The node's folder for temporary files cannot be written.
    """
    node = socket.gethostname()
    assignment, task = luggage.unpacked()
    with TemporaryDirectory(prefix="bench-") as name:
        root, kept = Path(name), {}
        if luggage.kept is not None:
            kept = {assignment.cell.fit_key: root / "kept"}
            write(luggage.kept, root / "kept")
        (root / "logs").mkdir()
        here = NodeTask(**{**vars(task), "root": root / "run", "kept": kept}, node=node)
        engine = LocalWorkers([luggage.slot], root / "logs", here, luggage.limits)
        with closing(engine.run(OneCell(assignment, luggage.retries))) as events:
            yield from _messages(events, node)
        (folder,) = (root / "run/cells").iterdir()
        yield Parcel(read(folder))


def _messages(events: Generator[Event], node: str) -> "Iterator[Begun | Again | Progress]":
    stage, last = "", 0.0
    for event in events:
        match event:
            case Started():
                yield Begun(node)
            case Interrupted(_, _, reason):
                yield Again(f"{reason} (on node {node})")
            case Progressed(_, _, progress):
                if progress.stage != stage or time.monotonic() - last >= _REPORT_INTERVAL:
                    stage, last = progress.stage, time.monotonic()
                    yield progress


class OneCell:
    """A single cell to run; a :class:`bench.execution.protocol.CellSource`."""

    def __init__(self, assignment: Assignment, retries: int) -> None:
        self._waiting: Assignment | None = replace(assignment, deaths=0)
        self._retries = retries

    @property
    def is_open(self) -> bool:
        """Whether the cell is to be handed out."""
        return self._waiting is not None

    @property
    def held_elsewhere(self) -> int:
        """None: nobody else knows of the cell."""
        return 0

    def take(self) -> Assignment | None:
        """The cell, once."""
        assignment, self._waiting = self._waiting, None
        return assignment

    def recorded_elsewhere(self) -> Iterator[Ended]:
        """Nothing: nobody else knows of the cell."""
        return iter(())

    def ended(self, assignment: Assignment) -> None:
        """Nothing is left to do."""

    def retry(self, assignment: Assignment, failure: "Failure") -> bool:
        """Hand the cell out again whose process died, if that is not too often."""
        if assignment.deaths < self._retries:
            self._waiting = assignment.after(failure.reason)
        return self.is_open


@dataclass(frozen=True)
class NodeTask(CellTask):
    """What is done with a cell on a node of a cluster: its files must be the ones it was planned with.

    Attributes:
        node: Its name, which failures say.
    """

    node: str = field(kw_only=True)

    def run(self, assignment: Assignment, slot: Slot, report: "Callable[[Progress], None]") -> "Record":
        """Run a cell whose data and weights are here as they are where it was planned; see :class:`CellTask`."""
        from bench.errors import user_errors
        from bench.recording import failure_of

        try:
            check_files(assignment.cell)
        except user_errors() as error:
            return self.record_failure(assignment, slot, failure_of(error))
        return super().run(assignment, slot, report)

    def record_failure(self, assignment: Assignment, slot: Slot, failure: "Failure") -> "Record":
        """Record why a cell has no metrics, and on which node."""
        reason = f"{failure.reason} (on node {self.node})"
        return super().record_failure(assignment, slot, failure.model_copy(update={"reason": reason}))


def check_files(cell: "Cell") -> None:
    """Make sure that data and weights are on this node, and the same as where the cell was planned.

    Raises:
        DataError: The scenario or the photographs are missing here, or others.
        WeightsError: Weights are missing here, or others.
    """
    from methods.errors import WeightsError
    from methods.registry import load_method

    entrant, scenario = cell.entrant, cell.scenario
    try:
        # A copy knows nothing of what has been read of the files elsewhere.
        same = replace(scenario).fingerprint == scenario.fingerprint
        photographs = entrant.photographs
        same_photographs = photographs is None or replace(photographs).identity == photographs.identity
    except DataError as error:
        raise DataError(f"data of {scenario.id} are not at hand: {error}\n  {_REMEDY}") from error
    if not same or not same_photographs:
        which = scenario.id if not same else "the folder of photographs"
        raise DataError(f"{which} has other files than where the run was started\n  {_REMEDY}")
    if entrant.unavailable:
        return  # it will say so itself
    try:
        weights = tuple(load_method(entrant.name).weights(entrant.config, cell.weights_dir))
    except WeightsError as error:
        raise WeightsError(f"{error}\n  {_REMEDY}") from error
    if weights != entrant.weights:
        raise WeightsError(f"{entrant.name} finds other weights than where the run was started\n  {_REMEDY}")


def read(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files, by name, into a new folder."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
