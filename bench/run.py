"""``bench run``: run the cells that are missing, on any engine, and report."""

import signal
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from bench.cells import Cell
from bench.errors import UsageError
from bench.execution.claims import Claims, Holder
from bench.execution.companions import check_companions, fingerprints, versions
from bench.execution.events import Ended, Event
from bench.execution.local import CellLimits, LocalWorkers
from bench.execution.order import groups_in_order
from bench.execution.protocol import CellTask, Engine
from bench.execution.ray_cluster import RayEngine
from bench.execution.slurm_jobs import MOST_JOBS, SlurmEngine
from bench.execution.supply import Supply
from bench.machine.devices import Slot
from bench.machine.environment import command_line
from bench.models import kept_models
from bench.options import RunOptions
from bench.plan import device_kind
from bench.preparation import PreparedRun, prepare, where
from bench.progress import make_display
from bench.run_folder import PlannedCell, make_folder, write_plan
from bench.summary import introduce, report_records
from results.record import Record
from results.store import safe_name

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

INTERRUPTED = 130
_FRUITLESS = 3
"""So many times in a row a job may end without having recorded a cell."""
_UNTIL_KILLED = 120.0
"""Seconds for which a job that has been asked to end waits for what comes next."""


def execute(prepared: PreparedRun, command: str) -> Generator[Event]:
    """Run the cells that are due and yield what happens to them; other runs may share the run folder.

    A cell whose fit is kept in the run folder, as happens when only a metric or the test images have changed, is not
    fitted again.

    Args:
        prepared: The run.
        command: What the records say has made them.

    Raises:
        BenchError: The run folder cannot be used, or a run that shares it has other data.
        ResultError: A record or a claim cannot be written.
    """
    root, options = prepared.store.root, prepared.options
    make_folder(root / "logs")
    cells = [cell for cell in prepared.plan.cells if cell.key in prepared.due]
    before = {cell.key: record for cell in cells if (record := prepared.records[cell.key]) is not None}
    task = CellTask(
        root, command, prepared.cache, options.keep_maps, options.keep_models, options.oracle, kept_models(root)
    )
    slots = prepared.slots[: len(cells)]
    forecast = prepared.forecast()

    def expected(cell: Cell) -> float:
        estimate = forecast.estimate(PlannedCell.of(cell).task)
        return estimate.seconds if estimate else 0.0

    # Places elsewhere share nothing of a scenario's: the longest cells go first.
    groups = groups_in_order(cells, expected, len(slots) or len(cells))
    holder = Holder.this_process(command, fingerprints(cells), versions())
    engine = _engine(prepared, slots, task, holder)
    with Claims(root, holder, options.takeover_after) as claims:
        check_companions(holder, claims.others(), root, strict=options.strict_environment)
        write_plan(root, command, prepared.plan.cells)
        # A node that is lost is no fault of a cell's.
        retries = max(1, options.retry) if options.engine == "ray" else options.retry
        yield from engine.run(Supply(groups, before, claims, prepared.store, retries))
        prepared.store.clear_drafts()


def _engine(prepared: PreparedRun, slots: Sequence[Slot], task: CellTask, holder: Holder) -> Engine:
    options, root = prepared.options, prepared.store.root.resolve()
    if options.engine == "slurm":
        there = replace(options, out=root, engine="local", slurm=(), jobs=None, shard=None)
        job = FolderJob(there, task.command, {key: _created(prepared.records[key]) for key in prepared.due})
        return SlurmEngine(root, job, options.jobs or min(MOST_JOBS, len(prepared.due)), options.slurm)
    memory = None if options.cell_memory is None else round(options.cell_memory * 1e9)
    limits = CellLimits(options.cell_timeout, memory)
    if options.engine == "ray":
        device = device_kind(options.device)
        needs = {str(name): need for name, need in options.ray.items()}
        return RayEngine(options.ray_address, needs, device, task, limits, options.retry, options.workers)
    return LocalWorkers(slots, root / "logs", task, limits, f"{safe_name(holder.host)}-{holder.pid}-")


def _created(record: Record | None) -> datetime | None:
    return None if record is None else record.created


@dataclass
class FolderJob:
    """What a job of a scheduler does: it runs cells of a run folder, which it shares with the other jobs by claims.

    Attributes:
        options: What the user asked for, with the run folder named and the cells running where the job does.
        command: What the records say has made them.
        due: When the record was made that a cell is to replace, if it has one, by the key of each cell that is to run.
        fruitless: How many times in a row the job has ended before without having recorded a cell.
        recorded: How many it has recorded since.
    """

    options: RunOptions
    command: str
    due: Mapping[str, datetime | None]
    fruitless: int = 0
    recorded: int = field(default=0, init=False)

    def __call__(self) -> None:
        """Run cells until all are recorded, here or by others, or the scheduler asks for an end.

        Raises:
            UsageError: The cells are others here than where the job was submitted.
        """
        prepared = prepare(self.options)
        missing = self.due.keys() - prepared.records.keys()
        if missing:
            raise UsageError(
                f"{len(missing)} of {len(self.due)} cells do not exist on this node: data, weights, packages or the "
                "kind of device differ from those where the job was submitted\n"
                "  bench plan … says there and here which cells there are."
            )
        due = {key: "to run" for key, before in self.due.items() if _created(prepared.records[key]) == before}
        if not due:
            return
        prepared = replace(prepared, due=due)
        try:
            with (
                terminable(),
                closing(execute(prepared, self.command)) as events,
                make_display(Console(force_terminal=False), len(due)) as display,
            ):
                for event in events:
                    self.recorded += isinstance(event, Ended) and event.slot is not None
                    display.show(event)
        except KeyboardInterrupt:
            # A job that is preempted and ends by itself is not always requeued: the scheduler is to end this one.
            time.sleep(_UNTIL_KILLED)

    def checkpoint(self) -> "DelayedSubmission | None":
        """What submitit requeues when the walltime is nearly over or the job is preempted; ``None`` for nothing."""
        from submitit.helpers import DelayedSubmission

        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end has begun
        fruitless = 0 if self.recorded else self.fruitless + 1
        if fruitless == _FRUITLESS:
            sys.stderr.write(f"no cell was done in {_FRUITLESS} walltimes: the time is too short for one\n")
            return None
        return DelayedSubmission(FolderJob(self.options, self.command, self.due, fruitless))


def run(options: RunOptions, console: Console) -> int:
    """Run the cells that the options ask for and that are not done yet; then write the report of the run folder.

    Returns:
        The exit code: 0, 3 if some cells failed, 130 after Ctrl-C.

    Raises:
        BenchError: The options make no sense, or the run folder cannot be used.
        MethodError: A method does not take its options, or no method has its weights.
        ResultError: The run folder cannot be read or written.
    """
    prepared = prepare(options)
    plan, cells, store, due = prepared.plan, prepared.cells, prepared.store, prepared.due
    introduce(plan, where(prepared), console)
    console.print(f"run folder: {escape(str(store.root))}{prepared.choice}", highlight=False, soft_wrap=True)
    make_folder(store.root)
    if not due:
        console.print(f"[bold]nothing to do:[/] all {len(cells)} cells have run before", highlight=False)
    elif len(due) < len(cells):
        console.print(f"{len(due)} of {len(cells)} cells to run, the others have run before")
    if due and options.engine == "slurm":
        console.print(
            "Ctrl-C cancels the jobs; if the connection is lost they go on, and the same command follows them"
        )
    if due and _is_interrupted(prepared, console):
        return INTERRUPTED
    remedy = "the same command with --retry-failed runs them again"
    return report_records(prepared.current_records(), store, remedy, console)


def _is_interrupted(prepared: PreparedRun, console: Console) -> bool:
    """Run the cells that are due and show how far they are; return whether the user interrupted."""
    recorded, total = 0, len(prepared.due)
    try:
        with (
            terminable(),
            closing(execute(prepared, command_line())) as events,
            make_display(console, total) as display,
        ):
            for event in events:
                recorded += isinstance(event, Ended)
                display.show(event)
    except KeyboardInterrupt:
        console.print(
            f"[bold]interrupted:[/] {recorded} of {total} cells are recorded, the ones that were running are given up; "
            "the same command continues",
            highlight=False,
        )
        return True
    return False


@contextmanager
def terminable() -> Iterator[None]:
    """Let a polite request to end (SIGTERM) do what Ctrl-C does."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
