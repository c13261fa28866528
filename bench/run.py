"""``bench run``: plan, run what is missing, report."""

import json
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.datasets.cache import Cache, default_cache_directory
from bench.errors import UsageError
from bench.execution.local import Workers
from bench.machine.devices import Slot, choose_slots
from bench.machine.environment import command_line, environment
from bench.options import RunOptions
from bench.plan import Cell, Plan, make_plan
from bench.progress import duration, make_display
from bench.recording import find_record, store_outcome
from methods.detector import Progress
from results.arrays import MAPS_FILE
from results.atomic import write_atomically
from results.record import Record
from results.store import RECORD_FILE, RunStore

RUNS = Path("runs")
"""Where runs go without ``--out``."""
PLAN_FILE = "plan.json"

OK, FAILED, INTERRUPTED = 0, 3, 130


def run(options: RunOptions, console: Console) -> int:
    """Run the cells that the options ask for and that are not done yet; then write the report of the run folder.

    Returns:
        The exit code: 0, 3 if some cells failed, 130 after Ctrl-C.

    Raises:
        BenchError: The options make no sense, or the run folder cannot be used.
        MethodError: A method does not take its options, or its weights are missing.
        ResultError: The run folder cannot be read or written.
    """
    slots = choose_slots(options.device, options.workers)
    cache = Cache(default_cache_directory(), options.cache)
    plan = make_plan(options, cache)
    out, why = choose_folder(options.out, plan)
    store = RunStore(out)
    records = {cell.key: find_record(store, cell) for cell in plan.cells}
    todo = [cell for cell in plan.cells if _is_due(store, cell, records[cell.key], options)]
    _introduce(plan, slots, console)
    if options.dry_run:
        _print_plan(plan, records, todo, out, console)
        return OK
    console.print(f"run folder: {escape(str(out))}{why}", highlight=False, soft_wrap=True)
    with locked(out):
        if todo:
            _write_plan(out, plan)
            if len(todo) < len(plan.cells):
                console.print(f"{len(todo)} of {len(plan.cells)} cells to run, the others have run before")
            interrupted = _run_cells(todo, options, slots, cache, store, console)
            if interrupted:
                return INTERRUPTED
        else:
            console.print(f"[bold]nothing to do:[/] all {len(plan.cells)} cells have run before", highlight=False)
        return _report(plan, store, console)


def choose_folder(out: Path | None, plan: Plan) -> tuple[Path, str]:
    """The run folder, and what to say about the choice.

    The one given; else the newest under ``runs`` that has the very same cells, so that the same command continues;
    else a new one.
    """
    if out is not None:
        return out, ""
    for path in sorted(RUNS.glob(f"*/{PLAN_FILE}"), reverse=True):
        try:
            keys = json.loads(path.read_text())["keys"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if keys == plan.keys:
            return path.parent, " (continued: it has the same cells)"
    return RUNS / datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ"), ""


def _is_due(store: RunStore, cell: Cell, record: Record | None, options: RunOptions) -> bool:
    if record is None or record.status == "failed":
        return record is None or options.retry_failed
    return options.keep_maps and not (store.cell_directory(cell.id) / MAPS_FILE).exists()


def _run_cells(
    cells: Sequence[Cell],
    options: RunOptions,
    slots: Sequence[Slot],
    cache: Cache,
    store: RunStore,
    console: Console,
) -> bool:
    """Run cells and record each when it ends; return whether the user interrupted."""
    logs = store.root / "logs"
    _make_folder(logs)
    environments = {slot: environment(slot) for slot in slots}
    command = command_line()
    recorded = 0
    workers = Workers(slots[: len(cells)], logs, cache, keep_maps=options.keep_maps)
    try:
        with (
            _terminable(),
            closing(workers.run(cells)) as events,
            make_display(console, len(cells)) as display,
        ):
            for event in events:
                if event.what is None:
                    display.started(event.slot, event.cell)
                elif isinstance(event.what, Progress):
                    display.stepped(event.slot, event.cell, event.what)
                else:
                    record = store_outcome(store, event.cell, event.what, environments[event.slot], command)
                    recorded += 1
                    display.ended(event.slot, event.cell, record)
    except KeyboardInterrupt:
        console.print(
            f"[bold]interrupted:[/] {recorded} of {len(cells)} cells are recorded, the ones that were running are "
            "given up; the same command continues",
            highlight=False,
        )
        return True
    return False


@contextmanager
def _terminable() -> Iterator[None]:
    """Let a polite request to end (SIGTERM) do what Ctrl-C does."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the run folder and let no other run write to it; the lock goes with the process, however that ends."""
    _make_folder(out)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"another bench run is writing to {out}\n  Wait for it, or choose another --out.") from error
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        yield
    finally:
        lock.release()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write to {folder}: {error.strerror or error}\n  Choose another folder with --out.")


def _write_plan(out: Path, plan: Plan) -> None:
    text = json.dumps({"command": command_line(), "keys": plan.keys}, indent=1) + "\n"
    write_atomically(out / PLAN_FILE, lambda file: file.write(text.encode()))


def _report(plan: Plan, store: RunStore, console: Console) -> int:
    records = [record for cell in plan.cells if (record := find_record(store, cell)) is not None]
    return report_records(records, store, "the same command with --retry-failed runs them again", console)


def report_records(records: Sequence[Record], store: RunStore, remedy: str, console: Console) -> int:
    """Write the report of a run folder if it is not up to date, and sum some of its records up in the terminal.

    Args:
        records: What the command was about.
        store: The run folder.
        remedy: What to do about cells that failed.
        console: The terminal.

    Returns:
        The exit code.
    """
    from reports.rendering.terminal import summary_table
    from reports.report import write_report

    folder = store.root / "report"
    if not _is_current(folder, store):
        with console.status("writing the report"):
            write_report([store.root], folder)
    console.print()
    console.print(summary_table(records))
    failed = sum(record.status == "failed" for record in records)
    if failed:
        console.print(
            f"\n[red]{failed} of {len(records)} cells failed[/]; the report has their logs, {remedy}",
            highlight=False,
            soft_wrap=not console.is_terminal,
        )
    console.print(f"\nreport: {escape(str(folder / 'report.md'))}", highlight=False, soft_wrap=True)
    return FAILED if failed else OK


def _is_current(report: Path, store: RunStore) -> bool:
    """Whether a report was written whole after the last record, in every format: ``cells.csv`` is its last file."""
    files = [report / name for name in ("report.md", "report.tex", "cells.csv")]
    if not all(file.exists() for file in files):
        return False
    written = min(file.stat().st_mtime_ns for file in files)
    return all(path.stat().st_mtime_ns < written for path in store.root.glob(f"cells/*/{RECORD_FILE}"))


def _introduce(plan: Plan, slots: Sequence[Slot], console: Console) -> None:
    """Say what the run covers and where it runs."""

    def say(text: str) -> None:
        # In a log every statement keeps to its line.
        console.print(text, highlight=False, soft_wrap=not console.is_terminal)

    scenarios = {cell.scenario.id: cell.scenario for cell in plan.cells}.values()
    counts = Counter(scenario.collection.name for scenario in scenarios)
    for collection in {scenario.collection.name: scenario.collection for scenario in scenarios}.values():
        of = f" of {collection.scenarios}" if collection.scenarios else ""
        note = f" ({escape(collection.note)})" if collection.note else ""
        say(f"{escape(collection.name)}: {_count(counts[collection.name], 'scenario', of)}{note}")
    where = ", ".join(sorted({slot.device for slot in slots}))
    say(f"{_count(len(slots), 'worker')} on {where}, {_count(slots[0].threads, 'CPU thread')} each")
    if plan.photographs is not None:
        say(f"photographs: {escape(plan.photographs)}")


def _count(number: int, what: str, of: str = "") -> str:
    return f"{number}{of} {what}{'' if number == 1 and not of else 's'}"


def _print_plan(
    plan: Plan, records: dict[str, Record | None], todo: Sequence[Cell], out: Path, console: Console
) -> None:
    table = Table(title="Plan", title_justify="left")
    for head in ("Method", "Scenario", "Seed", "Steps", "State", "Key"):
        table.add_column(head, justify="right" if head in ("Seed", "Steps") else "left")
    due = {cell.key for cell in todo}
    for cell in plan.cells:
        record = records[cell.key]
        state = "to run" if record is None else "done" if record.status == "ok" else "failed"
        if record is not None and cell.key in due:
            state += ", to run again for its maps" if record.status == "ok" else ", to retry"
        length = f"{cell.entrant.steps:,}" if cell.entrant.steps is not None else "–"
        table.add_row(cell.entrant.name, escape(cell.scenario.id), str(cell.seed), length, state, cell.key[:12])
    console.print(table)
    steps = sum(cell.entrant.steps or 0 for cell in todo)
    console.print(
        f"{len(todo)} of {len(plan.cells)} cells to run, {steps:,} training steps{_estimate(records, todo)}; "
        f"run folder: {escape(str(out))}",
        highlight=False,
        soft_wrap=True,
    )


def _estimate(records: dict[str, Record | None], todo: Sequence[Cell]) -> str:
    """Time to expect, from cells of the same methods that have run; empty if some method has none."""
    spent: dict[str, list[float]] = {}
    for record in records.values():
        if record is not None and record.timings is not None:
            spent.setdefault(record.method, []).append(sum(record.timings.model_dump().values()))
    if not todo or any(cell.entrant.name not in spent for cell in todo):
        return ""
    means = {method: sum(seconds) / len(seconds) for method, seconds in spent.items()}
    return f", about {duration(sum(means[cell.entrant.name] for cell in todo))} on one worker"
