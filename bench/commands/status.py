"""``bench status``: how far a run folder is."""

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from bench.commands.flags import console
from bench.errors import UsageError
from bench.option_types import Flag, Folder, Limits

if TYPE_CHECKING:
    from rich.console import Group

    from bench.status import RunStatus

_SHOWN = 40
"""Running cells beyond which a list of them is no help in a terminal."""


@dataclass(frozen=True)
class StatusOptions:
    """Everything that ``bench status`` takes.

    Attributes:
        run: Run folder.
        watch: Show it anew every few seconds until all cells are recorded.
        json: Print it as JSON.
        takeover_after: Seconds without a sign of life after which a run is called silent, which --watch can tell.
    """

    run: Annotated[Folder, Flag(argument="RUN")]
    watch: bool = False
    json: bool = False
    takeover_after: Annotated[float, Limits(gt=0, allow_inf_nan=False)] = 60.0


def status(options: StatusOptions) -> int:
    """Show how far a run folder is: done, running and where, waiting, failed, and when it may end."""
    from bench.run_folder import PLAN_FILE
    from bench.status import StatusReader

    if not (options.run / PLAN_FILE).exists():
        raise UsageError(
            f"{options.run} is no run folder: it has no {PLAN_FILE}\n  Name the folder that bench run has written to."
        )
    terminal, reader = console(), StatusReader(options.run, options.takeover_after)
    if options.json:
        terminal.out(json.dumps(_document(reader.read()), indent=2), highlight=False)
        return 0
    if not options.watch:
        terminal.print(_shown(reader.read()))
        return 0
    from rich.live import Live

    with Live(console=terminal, auto_refresh=False) as live:
        while True:
            now = reader.read()
            live.update(_shown(now), refresh=True)
            if not now.waiting and not now.running:
                return 0
            time.sleep(2)


def _document(now: "RunStatus") -> dict[str, object]:
    return {
        "planned": now.planned,
        "done": now.done,
        "failed": now.failed,
        "waiting": now.waiting,
        "seconds_left": now.left,
        "others": now.others,
        "running": [
            {
                "method": one.cell.method,
                "scenario": one.cell.scenario,
                "seed": one.cell.seed,
                "seconds": one.seconds,
                "host": one.holder.host if one.holder else None,
                "process": one.holder.pid if one.holder else None,
                "gone": one.gone or None,
            }
            for one in now.running
        ],
        "runs": [dataclasses.asdict(one) | {"data": None, "packages": None} for one in now.holders],
    }


def _shown(now: "RunStatus") -> "Group":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from bench.forecast import duration

    failed = sum(now.failed.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(now.failed.items()))
    parts = [
        f"{now.done} of {now.planned} cells done",
        f"{failed} failed ({kinds})" if failed else "",
        f"{len(now.alive)} running",
        f"{len(now.running) - len(now.alive)} left by runs that are gone" if len(now.running) > len(now.alive) else "",
        f"{now.waiting} waiting",
    ]
    lines: list[Table | Text] = [Text(", ".join(part for part in parts if part))]
    if now.running:
        table = Table()
        for head in ("Cell", "Since", "Where"):
            table.add_column(head, justify="right" if head == "Since" else "left")
        for one in sorted(now.running, key=lambda one: -one.seconds)[:_SHOWN]:
            where = one.gone or (one.holder.label if one.holder else "")
            table.add_row(Text(one.cell.label), duration(one.seconds), Text(where, style="red" if one.gone else ""))
        lines.append(table)
        if len(now.running) > _SHOWN:
            lines.append(Text(f"and {len(now.running) - _SHOWN} more"))
    runs = len(now.holders)
    if runs:
        lines.append(Text(f"{runs} run{'' if runs == 1 else 's'}: {', '.join(one.label for one in now.holders)}"))
    elif now.waiting or now.running:
        lines.append(Text("no run is going on here; the same bench run command continues"))
    if now.left:
        lines.append(Text(f"about {duration(now.left)} left, if as many cells run at a time as now"))
    if now.others:
        lines.append(Text(f"{now.others} more cells with records, of other commands"))
    return Group(*lines)
