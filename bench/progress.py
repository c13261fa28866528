"""How far a run is: live lines in a terminal, log lines anywhere else."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from bench.cells import Cell
from bench.execution.events import Ended, Event, Interrupted, Progressed, Started, Waiting
from bench.forecast import duration
from bench.machine.devices import Slot
from methods.detector import Progress as Step
from results.record import Record, Timings

_WIDE = 100
_LOG_EVERY = 30.0
_HEADLINES = (("image_au_roc", "image AU-ROC"), ("au_pro@0.3", "AU-PRO@0.3"), ("au_spro@0.05", "AU-sPRO@0.05"))


class Display(Protocol):
    """Shows the cells of a run."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Show what has happened to a cell."""


def make_display(console: Console, total: int) -> Display:
    """Choose the display that ``console`` can show, for ``total`` cells."""
    return LiveDisplay(console, total) if console.is_terminal else LogDisplay(console, total)


@dataclass
class _Stage:
    """Rate of one stage of one cell, from the first step seen: work before that, such as loading, is not a step."""

    name: str
    first: int
    start: float

    def rate(self, step: Step, now: float) -> float | None:
        """Steps per second; ``None`` while there is nothing to go by."""
        return (step.done - self.first) / (now - self.start) if step.done > self.first and now > self.start else None


class Pace:
    """Steps, rate and time left of running cells."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stages: dict[str, _Stage] = {}

    def describe(self, key: str, step: Step) -> tuple[str, str, str]:
        """Count, rate and time left of the cell ``key``, as text; empty where there are no steps to count."""
        now = self._clock()
        stage = self._stages.get(key)
        if stage is None or stage.name != step.stage:
            stage = self._stages[key] = _Stage(step.stage, step.done, now)
        if step.total <= 2:
            return "", "", ""
        count = f"{step.done:,}/{step.total:,}"
        rate = stage.rate(step, now)
        if rate is None:
            return count, "", ""
        shown = f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        return count, shown, duration((step.total - step.done) / rate)


def outcome_line(record: Record) -> str:
    """One line, with markup, about a cell that has ended."""
    label = f"[bold]{escape(f'{record.method} · {record.collection.name}/{record.scenario} · {record.seed}')}[/]"
    if record.failure is not None:
        return f"[red]failed[/] {label}: {escape(record.failure.reason)}"
    values = [
        f"{title} {100 * value:.1f}" for name, title in _HEADLINES if (value := record.metrics.get(name)) is not None
    ]
    spent = f" ({_spent(record.timings, record.implementation)})" if record.timings else ""
    return f"[green]done[/]   {label}: {', '.join(values) or 'no defined metric'}{spent}"


def again_line(cell: Cell, reason: str) -> str:
    """One line, with markup, about a cell that will be run again."""
    return f"[yellow]again[/]  [bold]{escape(cell.label)}[/]: {escape(reason)}"


def waiting_line(cells: int) -> str:
    """One line about cells that other runs hold."""
    return f"waiting for {cells} cell{'' if cells == 1 else 's'} that other runs hold"


def _by(slot: Slot | None) -> str:
    return "" if slot is not None else " (by another run)"


def _spent(timings: Timings, implementation: Mapping[str, str]) -> str:
    """The time that a cell took; where it took the model of another cell, that of the fit is not among it."""
    seconds = timings.decode + timings.maps + timings.metrics
    kept = implementation.get("fit")
    return f"{duration(seconds)}, {kept}" if kept else duration(seconds + timings.fit)


class LogDisplay:
    """Plain lines: when a cell starts, twice a minute, and when it ends."""

    def __init__(self, console: Console, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._total = total
        self._clock = clock
        self._ended = 0
        self._waiting = 0
        self._last: dict[str, float] = {}
        self._pace = Pace(clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, event: Event) -> None:
        """Print what has happened to a cell, if it is worth a line."""
        match event:
            case Started(slot, cell, node):
                self._started(cell, f"{slot.device} of {node}" if node else slot.device)
            case Progressed(_, cell, progress):
                self._progressed(cell, progress)
            case Interrupted(_, cell, reason):
                self._print(again_line(cell, reason))
            case Ended(slot, _, record):
                self._ended += 1
                self._print(f"{outcome_line(record)}{_by(slot)} [{self._ended} of {self._total}]")
            case Waiting(cells) if cells != self._waiting:
                self._waiting = cells
                self._print(waiting_line(cells))

    def _started(self, cell: Cell, where: str) -> None:
        self._last[cell.key] = self._clock()
        self._print(f"start  {escape(cell.label)} on {escape(where)}")

    def _progressed(self, cell: Cell, step: Step) -> None:
        """Print the cell's progress if it has been silent for a while."""
        count, rate, left = self._pace.describe(cell.key, step)
        if rate and self._clock() - self._last[cell.key] >= _LOG_EVERY:
            self._last[cell.key] = self._clock()
            self._print(f"       {escape(cell.label)}: {step.stage} {count}, {rate}, {left} left")

    def _print(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)


class LiveDisplay:
    """A line per running cell and one for the whole run; outcomes scroll by above."""

    def __init__(self, console: Console, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        bar = 24 if console.width >= _WIDE else 8
        self._console = console
        self._clock = clock
        self._pace = Pace(clock)
        self._start = clock()
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            TextColumn("{task.fields[stage]}", table_column=Column(no_wrap=True)),
            BarColumn(bar),
            _right("count"),
            _right("rate"),
            _right("left"),
            console=console,
            transient=True,
            expand=True,
        )
        self._total = self._progress.add_task("[bold]all cells[/]", total=total, **_fields())

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def refresh(self) -> None:
        """Draw the lines now, rather than when their next tenth of a second is over."""
        self._progress.refresh()

    def show(self, event: Event) -> None:
        """Bring the lines up to date."""
        match event:
            case Started(_, cell, _):
                self._started(cell)
            case Progressed(_, cell, progress):
                self._progressed(cell, progress)
            case Interrupted(_, cell, reason):
                self._remove(cell)
                self._console.print(again_line(cell, reason), highlight=False)
            case Ended(slot, cell, record):
                self._remove(cell)
                self._console.print(f"{outcome_line(record)}{_by(slot)}", highlight=False)
                self._update_total(1)
            case Waiting(cells):
                self._progress.update(self._total, description=waiting_line(cells))

    def _started(self, cell: Cell) -> None:
        task = self._progress.add_task(escape(cell.label), total=None, **_fields(stage="start"))
        self._tasks[cell.key] = task

    def _progressed(self, cell: Cell, step: Step) -> None:
        count, rate, left = self._pace.describe(cell.key, step)
        counted = step.total > 2
        self._progress.update(
            self._tasks[cell.key],
            total=step.total if counted else None,
            completed=step.done if counted else 0,
            **_fields(step.stage, count, rate, left),
        )
        self._update_total(0)

    def _remove(self, cell: Cell) -> None:
        """Remove the cell's line, if it has run here."""
        task = self._tasks.pop(cell.key, None)
        if task is not None:
            self._progress.remove_task(task)

    def _update_total(self, more: int) -> None:
        self._progress.update(self._total, advance=more)
        task = next(task for task in self._progress.tasks if task.id == self._total)
        done, total = int(task.completed), int(task.total or 0)
        elapsed = self._clock() - self._start
        left = duration(elapsed / done * (total - done)) if done else ""
        self._progress.update(self._total, **_fields("", f"{done}/{total}", "", left))


def _right(field: str) -> TextColumn:
    return TextColumn(f"{{task.fields[{field}]}}", justify="right", table_column=Column(no_wrap=True, justify="right"))


def _fields(stage: str = "", count: str = "", rate: str = "", left: str = "") -> dict[str, Any]:
    return {"stage": stage, "count": count, "rate": rate, "left": left}
