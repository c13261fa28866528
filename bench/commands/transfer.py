"""What commands that fetch files say while they do."""

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_LOG_EVERY = 10.0
"""Seconds between lines where there is no terminal."""


class Transfer:
    """How far a download is: a line in a terminal that moves, log lines anywhere else."""

    def __init__(self, terminal: "Console") -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._terminal = terminal
        self._step = ""
        self._said = 0.0
        self._bar: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(24 if terminal.width >= 100 else 10),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=terminal,
            disable=not terminal.is_terminal,
        )

    def __enter__(self) -> "Transfer":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, step: str, done: int, total: int | None) -> None:
        """Bring the line up to date, or print one if the last is some seconds old or everything is done."""
        from rich.markup import escape

        if step != self._step:
            self._step, self._said = step, time.monotonic()
            self._bar.add_task(escape(step), total=total)
        self._bar.update(self._bar.task_ids[-1], completed=done, total=total)
        if not self._terminal.is_terminal and (done == total or time.monotonic() - self._said >= _LOG_EVERY):
            self._said = time.monotonic()
            of = f" of {total / 1e6:.1f}" if total else ""
            say(self._terminal, f"{step}: {done / 1e6:.1f}{of} MB")


def say(terminal: "Console", text: str) -> None:
    """Print a text as it is; a line of it stays one line.

    Args:
        terminal: Where.
        text: Without markup.
    """
    from rich.markup import escape

    terminal.print(escape(text), highlight=False, soft_wrap=True)
