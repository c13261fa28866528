"""What a run says in the terminal before its first cell and after its last."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from bench.plan import Plan
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
