"""What a run says in the terminal before its first cell and after its last."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.cells import Cell
from bench.plan import Plan
from bench.progress import duration
from bench.run_folder import update_report
from results.record import Record
from results.store import RunStore

OK, FAILED = 0, 3


def introduce(plan: Plan, where: str, console: Console) -> None:
    """Say what the run covers and where it runs, which is given in words."""

    def say(text: str) -> None:
        # In a log every statement keeps to its line.
        console.print(text, highlight=False, soft_wrap=not console.is_terminal)

    scenarios = {cell.scenario.id: cell.scenario for cell in plan.cells}.values()
    counts = Counter(scenario.collection.name for scenario in scenarios)
    for collection in {scenario.collection.name: scenario.collection for scenario in scenarios}.values():
        of = f" of {collection.scenarios}" if collection.scenarios else ""
        note = f" ({escape(collection.note)})" if collection.note else ""
        say(f"{escape(collection.name)}: {counted(counts[collection.name], 'scenario', of)}{note}")
    for sentence in plan.passed_over:
        say(f"not read: {escape(sentence)}")
    say(where)
    if plan.photographs is not None:
        say(f"photographs: {escape(plan.photographs)}")
    for entrant in {cell.entrant.name: cell.entrant for cell in plan.cells if cell.entrant.unavailable}.values():
        say(f"[red]{escape(entrant.name)} has no weights, so its cells fail:[/] {escape(entrant.unavailable)}")


def print_plan(
    plan: Plan, records: Mapping[str, Record | None], due: Mapping[str, str], out: Path, console: Console
) -> None:
    """Print what would be done.

    Args:
        plan: The cells.
        records: Their records so far, by key.
        due: Why each cell that would run is to run, by key.
        out: The run folder.
        console: The terminal.
    """
    table = Table(title="Plan", title_justify="left")
    for head in ("Method", "Scenario", "Seed", "Steps", "State", "Key"):
        table.add_column(head, justify="right" if head in ("Seed", "Steps") else "left")
    for cell in plan.cells:
        record = records[cell.key]
        before = "" if record is None else "done" if record.status == "ok" else "failed"
        to_fail = "will fail: no weights" if cell.entrant.unavailable and cell.key in due else ""
        state = ", ".join(part for part in (before, due.get(cell.key, ""), to_fail) if part)
        length = f"{cell.training_steps:,}" if cell.training_steps is not None else "–"
        table.add_row(cell.entrant.name, escape(cell.scenario.id), str(cell.seed), length, state, cell.key[:12])
    console.print(table)
    todo = [cell for cell in plan.cells if cell.key in due]
    steps = sum(cell.training_steps or 0 for cell in todo)
    console.print(
        f"{len(todo)} of {len(plan.cells)} cells to run, {steps:,} training steps{_estimate(records, todo)}; "
        f"run folder: {escape(str(out))}",
        highlight=False,
        soft_wrap=True,
    )


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

    with console.status("writing the report"):
        folder = update_report(store)
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


def counted(number: int, what: str, of: str = "") -> str:
    """A number of things, in words: ``2 workers``, ``1 of 15 scenarios``."""
    return f"{number}{of} {what}{'' if number == 1 and not of else 's'}"


def _estimate(records: Mapping[str, Record | None], todo: Sequence[Cell]) -> str:
    """Time to expect, from cells of the same methods that have run; empty if some method has none."""
    spent: dict[str, list[float]] = {}
    for record in records.values():
        if record is not None and record.timings is not None:
            spent.setdefault(record.method, []).append(sum(record.timings.model_dump().values()))
    if not todo or any(cell.entrant.name not in spent for cell in todo):
        return ""
    means = {method: sum(seconds) / len(seconds) for method, seconds in spent.items()}
    return f", about {duration(sum(means[cell.entrant.name] for cell in todo))} on one worker"
