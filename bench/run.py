"""``bench run``: plan, run what is missing, report."""

import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.cells import Cell
from bench.datasets.cache import Cache, default_cache_directory
from bench.execution.claims import Claims, Holder
from bench.execution.companions import check_companions, fingerprints, versions
from bench.execution.local import CellLimits, LocalWorkers
from bench.execution.order import groups_in_order
from bench.execution.protocol import CellTask, Ended, Engine, Event
from bench.execution.ray_cluster import RayEngine, check_ray
from bench.execution.supply import Supply
from bench.machine.devices import Slot, choose_slots
from bench.machine.environment import command_line
from bench.models import has_model, kept_models
from bench.options import RunOptions
from bench.plan import Plan, device_kind, make_plan, plan_document
from bench.progress import make_display
from bench.recording import find_record
from bench.run_folder import choose_folder, make_folder, write_plan
from bench.summary import OK, counted, introduce, print_plan, report_records
from results.arrays import MAPS_FILE
from results.epoch_states import ORACLE_FILE
from results.record import Record
from results.store import RunStore

INTERRUPTED = 130


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A run before its first cell.

    Attributes:
        options: What the user asked for.
        plan: The cells of that.
        slots: Where they run; none of them where the engine finds the places itself.
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
    check_ray(options, device_kind(options.device))
    slots = choose_slots(options.device, options.workers) if options.engine == "local" else []
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
    # Tasks of a cluster share nothing: the longest cells go first.
    groups = groups_in_order(cells, lambda cell: cell.training_steps or 0, len(slots) or len(cells))
    holder = Holder.this_process(command, fingerprints(cells), versions())
    with Claims(root, holder, options.takeover_after) as claims:
        check_companions(holder, claims.others(), root, strict=options.strict_environment)
        write_plan(root, command, prepared.plan.cells)
        # A node that is lost is no fault of a cell's.
        retries = options.retry if options.engine == "local" else max(1, options.retry)
        supply = Supply(groups, before, claims, prepared.store, retries)
        yield from _engine(options, slots, logs, task, holder).run(supply)


def _engine(options: RunOptions, slots: Sequence[Slot], logs: Path, task: CellTask, holder: Holder) -> Engine:
    memory = None if options.cell_memory is None else round(options.cell_memory * 1e9)
    limits = CellLimits(options.cell_timeout, memory)
    if options.engine == "ray":
        device = device_kind(options.device)
        needs = {str(name): need for name, need in options.ray.items()}
        return RayEngine(options.ray_address, needs, device, task, limits, options.retry, options.workers)
    return LocalWorkers(slots, logs, task, limits, f"{holder.id[:6]}-")


def where(prepared: PreparedRun) -> str:
    """Where the cells run, in words."""
    slots, options = prepared.slots, prepared.options
    if options.engine == "ray":
        return f"cells on a Ray cluster, on the {'GPU' if device_kind(options.device) == 'cuda' else 'CPU'}"
    devices = ", ".join(sorted({slot.device for slot in slots}))
    return f"{counted(len(slots), 'worker')} on {devices}, {counted(slots[0].threads, 'CPU thread')} each"


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
    if options.dry_run and options.json:
        console.print_json(data=plan_document(plan, prepared.records, due, store.root))
        return OK
    introduce(plan, where(prepared), console)
    if options.dry_run:
        print_plan(plan, prepared.records, due, store.root, console)
        return OK
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
