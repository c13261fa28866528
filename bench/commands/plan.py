"""``bench plan``: what a run would do, and what it would take."""

import json
from typing import TYPE_CHECKING

from bench.commands.flags import console
from bench.options import RunOptions

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bench.outlook import MethodOutlook, Outlook
    from bench.preparation import PreparedRun

_LISTED = 60
"""Cells beyond which a list of them is no help in a terminal."""


def plan(options: RunOptions) -> int:
    """Show what bench run with the same flags would do, how long it would take, what is there and what is missing.

    Estimates come from records of cells that have run, in the run folder and in those under runs/.
    """
    from bench.outlook import look_ahead, outlook_document
    from bench.preparation import prepare, where
    from bench.summary import introduce

    prepared, terminal = prepare(options), console()
    if options.json:
        terminal.out(json.dumps(outlook_document(prepared), indent=2), highlight=False)
        return 0
    introduce(prepared.plan, where(prepared), terminal)
    if len(prepared.plan.cells) <= _LISTED:
        terminal.print(_cell_table(prepared))
    outlook = look_ahead(prepared)
    if outlook.methods:
        terminal.print(_method_table(outlook))
    _print_sums(prepared, outlook, terminal)
    return 0


def _cell_table(prepared: "PreparedRun") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Cells", title_justify="left")
    for head in ("Method", "Scenario", "Seed", "Steps", "State", "Key"):
        table.add_column(head, justify="right" if head in ("Seed", "Steps") else "left")
    for cell in prepared.plan.cells:
        record, due = prepared.records[cell.key], prepared.due.get(cell.key, "")
        before = "" if record is None else "done" if record.status == "ok" else "failed"
        to_fail = "will fail: no weights" if cell.entrant.unavailable and due else ""
        state = ", ".join(part for part in (before, due, to_fail) if part)
        length = f"{cell.training_steps:,}" if cell.training_steps is not None else "–"
        table.add_row(cell.entrant.name, escape(cell.scenario.id), str(cell.seed), length, state, cell.key[:12])
    return table


def _method_table(outlook: "Outlook") -> "Table":
    from rich.table import Table

    table = Table(title="Expected", title_justify="left")
    for head in ("Method", "Cells", "Steps", "Time", "Range", "From", "Memory"):
        table.add_column(head, justify="left" if head in ("Method", "From") else "right", no_wrap=head == "Method")
    for method in outlook.methods:
        table.add_row(
            method.method, str(method.cells), f"{method.steps:,}" if method.steps else "–", *_expected(method)
        )
    return table


def _expected(method: "MethodOutlook") -> tuple[str, str, str, str]:
    from bench.forecast import duration

    if method.unavailable:
        return "–", "–", "no weights: will fail", "–"
    if not method.is_known:
        return "–", "–", "no record of it", "–"
    seconds, least, greatest = method.seconds
    basis = f"{method.basis} ({min(one.observations for one in method.estimates)})"
    memory = "–" if method.peak_memory is None else size(method.peak_memory)
    # One record has no range.
    spread = "–" if least == greatest else f"{duration(least)}–{duration(greatest)}"
    return duration(seconds), spread, basis, memory


def _print_sums(prepared: "PreparedRun", outlook: "Outlook", terminal: "Console") -> None:
    from rich.markup import escape

    from bench.forecast import duration

    def say(text: str) -> None:
        terminal.print(text, highlight=False, soft_wrap=True)

    due = [cell for cell in prepared.plan.cells if cell.key in prepared.due]
    steps = sum(cell.training_steps or 0 for cell in due)
    known = [method for method in outlook.methods if method.estimates and not method.unavailable]
    workers = "one worker" if outlook.workers == 1 else f"{outlook.workers} workers"
    about = f", about {duration(outlook.elapsed)} on {workers}" if known else ""
    rest = f" without {', '.join(outlook.unknown)}" if known and outlook.unknown else ""
    say(
        f"{len(due)} of {len(prepared.plan.cells)} cells to run, {steps:,} training steps{about}{rest}; "
        f"run folder: {escape(str(prepared.store.root))}"
    )
    if due:
        say(f"device: {escape(outlook.device)}")
    if outlook.images:
        say(f"decoded images: {size(outlook.images)} in the cache, of which {size(outlook.images_cached)} are there")
    if outlook.results:
        say(f"run folder: {size(outlook.results)} more{rest}")
    if outlook.unknown:
        say(
            f"nothing is known of {', '.join(outlook.unknown)}: a run at a small --train-scale, in the same run folder "
            "or under runs/, tells how long a step is"
        )


def size(count: int) -> str:
    """Bytes as a person reads them, in powers of 1000."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
