"""A run before its first cell: which cells there are, which of them are due, and where they run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.cells import Cell
from bench.datasets.cache import Cache, default_cache_directory
from bench.execution.order import part_of
from bench.execution.ray_cluster import check_ray
from bench.execution.slurm_jobs import check_slurm, device_of_jobs
from bench.forecast import Forecast, device_name, observe
from bench.machine.devices import Slot, choose_slots
from bench.machine.environment import cpu_name, gpu_name
from bench.models import has_model
from bench.options import RunOptions
from bench.plan import Plan, device_kind, make_plan
from bench.recording import find_record
from bench.run_folder import choose_folder
from bench.summary import counted
from results.arrays import MAPS_FILE
from results.epoch_states import ORACLE_FILE
from results.record import Record
from results.store import RunStore


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A run before its first cell.

    Attributes:
        options: What the user asked for.
        plan: The cells of that.
        cells: Those of them that are this run's: all, or the part that the options name.
        slots: Where they run on this machine; none if they run elsewhere.
        cache: Where decoded images are kept.
        store: The run folder.
        choice: What to say about the choice of the folder.
        records: The record that each cell has already, if any, by key.
        due: Why each of its cells that is to run is to run, by key, in the order in which they run.
    """

    options: RunOptions
    plan: Plan
    cells: Sequence[Cell]
    slots: list[Slot]
    cache: Cache
    store: RunStore
    choice: str
    records: Mapping[str, Record | None]
    due: Mapping[str, str]

    @property
    def device(self) -> str:
        """What the first worker runs on, as far as times depend on it; where that is not here, nobody knows."""
        if not self.slots:
            return f"{self.options.device}, elsewhere"
        slot = self.slots[0]
        return device_name(gpu_name(slot.device) if slot.device != "cpu" else None, cpu_name(), slot.threads)

    def forecast(self, *more: Path) -> Forecast:
        """What cells are expected to take, from those in the run folder and in further ones."""
        folders = {folder.absolute() for folder in (self.store.root, *more)}
        return Forecast(observe(sorted(folders)), self.device)

    def current_records(self) -> list[Record]:
        """The records that the cells of this run have by now.

        Raises:
            ResultError: One cannot be read.
        """
        return [record for cell in self.cells if (record := find_record(self.store, cell)) is not None]


def prepare(options: RunOptions) -> PreparedRun:
    """Find out which cells the options ask for, and which of them are to run.

    Raises:
        BenchError: The options make no sense, or the run folder cannot be used.
        MethodError: A method does not take its options, or no method has its weights.
        ResultError: The run folder cannot be read.
    """
    check_ray(options, device_kind(options.device))
    check_slurm(options)
    slots: list[Slot] = []
    if options.engine == "local":
        slots = choose_slots(options.device, options.workers, options.threads)
    elif options.engine == "slurm" and options.device == "auto":  # here may be none of the devices of the jobs
        options = replace(options, device=device_of_jobs(options.slurm))
    cache = Cache(default_cache_directory(), options.cache)
    plan = make_plan(options, cache)
    out, choice = choose_folder(options.out, plan.keys)
    store = RunStore(out)
    records = {cell.key: find_record(store, cell) for cell in plan.cells}
    cells = part_of(plan.cells, options.shard)
    reasons = {cell.key: _reason(store, cell, records[cell.key], options) for cell in cells}
    due = {key: reason for key, reason in reasons.items() if reason}
    return PreparedRun(options, plan, cells, slots, cache, store, choice, records, due)


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


def where(prepared: PreparedRun) -> str:
    """Where the cells run, in words."""
    slots, options = prepared.slots, prepared.options
    if options.engine != "local":
        place = "as tasks of a Ray cluster" if options.engine == "ray" else "in jobs of Slurm"
        return f"cells run {place}, on the {'GPU' if device_kind(options.device) == 'cuda' else 'CPU'}"
    devices = ", ".join(sorted({slot.device for slot in slots}))
    return f"{counted(len(slots), 'worker')} on {devices}, {counted(slots[0].threads, 'CPU thread')} each"
