"""``bench run``: plan, run what is missing, report."""

import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.cells import Cell
from bench.datasets.cache import Cache, default_cache_directory
from bench.execution.claims import Claims, Holder
from bench.execution.companions import check_companions, fingerprints, versions
from bench.execution.events import Ended, Event
from bench.execution.local import CellLimits, LocalWorkers
from bench.execution.order import groups_in_order
from bench.execution.protocol import CellTask, Engine
from bench.execution.supply import Supply
from bench.forecast import Forecast, device_name, observe
from bench.machine.devices import Slot, choose_slots
from bench.machine.environment import command_line, cpu_name, gpu_name
from bench.models import has_model, kept_models
from bench.options import RunOptions
from bench.plan import Plan, make_plan
from bench.progress import make_display
from bench.recording import find_record
from bench.run_folder import RUNS, PlannedCell, choose_folder, make_folder, write_plan
from bench.summary import introduce, report_records
from results.arrays import MAPS_FILE
from results.epoch_states import ORACLE_FILE
from results.record import Record
from results.store import RunStore, safe_name

INTERRUPTED = 130


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A run before its first cell.

    Attributes:
        options: What the user asked for.
        plan: The cells of that.
        slots: Where they run.
        cache: Where decoded images are kept.
        store: The run folder.
        choice: What to say about the choice of the folder.
        records: The record that each cell has already, if any, by key.
        due: Why each cell that is to run is to run, by key, in the order in which they run.
    """

    options: RunOptions
    plan: Plan
    slots: list[Slot]
    cache: Cache
    store: RunStore
    choice: str
    records: Mapping[str, Record | None]
    due: Mapping[str, str]

    @property
    def device(self) -> str:
        """What the first worker runs on, as far as times depend on it."""
        slot = self.slots[0]
        return device_name(gpu_name(slot.device) if slot.device != "cpu" else None, cpu_name(), slot.threads)

    @cached_property
    def forecast(self) -> Forecast:
        """What cells are expected to take, from those in the run folder and in the runs under ``runs``."""
        folders = {self.store.root.absolute(), *(path.absolute() for path in RUNS.glob("*"))}
        return Forecast(observe(sorted(folders)), self.device)

    def expected_seconds(self, cell: Cell) -> float:
        """Seconds that a cell is expected to take; 0 if nothing is known of its method."""
        estimate = self.forecast.estimate(PlannedCell.of(cell).task)
        return estimate.seconds if estimate else 0.0

    def current_records(self) -> list[Record]:
        """The records that the cells of the plan have by now.

        Raises:
            ResultError: One cannot be read.
        """
        return [record for cell in self.plan.cells if (record := find_record(self.store, cell)) is not None]


def prepare(options: RunOptions) -> PreparedRun:
    """Find out which cells the options ask for, and which of them are to run.

    Raises:
        BenchError: The options make no sense, or the run folder cannot be used.
        MethodError: A method does not take its options, or no method has its weights.
        ResultError: The run folder cannot be read.
    """
    slots = choose_slots(options.device, options.workers)
    cache = Cache(default_cache_directory(), options.cache)
    plan = make_plan(options, cache)
    out, choice = choose_folder(options.out, plan.keys)
    store = RunStore(out)
    records = {cell.key: find_record(store, cell) for cell in plan.cells}
    reasons = {cell.key: _reason(store, cell, records[cell.key], options) for cell in plan.cells}
    due = {key: reason for key, reason in reasons.items() if reason}
    return PreparedRun(options, plan, slots, cache, store, choice, records, due)


def _reason(store: RunStore, cell: Cell, record: Record | None, options: RunOptions) -> str:
    """Why a cell is to run; empty if it is not."""
    if record is None:
        return "to run"
    if record.status == "failed":
        return "to retry" if options.retry_failed else ""
    directory = store.cell_directory(cell.id)
    if options.keep_maps and not (directory / MAPS_FILE).exists():
        return "to run again for its maps"
    if options.keep_models and not has_model(directory):
        return "to run again for its model"
    if options.oracle and not (directory / ORACLE_FILE).exists():
        return "to run again for the states of its epochs"
    return ""


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
    logs = root / "logs"
    make_folder(logs)
    cells = [cell for cell in prepared.plan.cells if cell.key in prepared.due]
    before = {cell.key: record for cell in cells if (record := prepared.records[cell.key]) is not None}
    task = CellTask(
        root, command, prepared.cache, options.keep_maps, options.keep_models, options.oracle, kept_models(root)
    )
    slots = prepared.slots[: len(cells)]
    groups = groups_in_order(cells, prepared.expected_seconds, len(slots))
    holder = Holder.this_process(command, fingerprints(cells), versions())
    with Claims(root, holder, options.takeover_after) as claims:
        check_companions(holder, claims.others(), root, strict=options.strict_environment)
        write_plan(root, command, prepared.plan.cells)
        supply = Supply(groups, before, claims, prepared.store, options.retry)
        yield from _engine(options, slots, logs, task, holder).run(supply)


def _engine(options: RunOptions, slots: Sequence[Slot], logs: Path, task: CellTask, holder: Holder) -> Engine:
    memory = None if options.cell_memory is None else round(options.cell_memory * 1e9)
    return LocalWorkers(
        slots, logs, task, CellLimits(options.cell_timeout, memory), f"{safe_name(holder.host)}-{holder.pid}-"
    )


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
    plan, store, due = prepared.plan, prepared.store, prepared.due
    introduce(plan, prepared.slots, console)
    console.print(f"run folder: {escape(str(store.root))}{prepared.choice}", highlight=False, soft_wrap=True)
    make_folder(store.root)
    if not due:
        console.print(f"[bold]nothing to do:[/] all {len(plan.cells)} cells have run before", highlight=False)
    elif len(due) < len(plan.cells):
        console.print(f"{len(due)} of {len(plan.cells)} cells to run, the others have run before")
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
