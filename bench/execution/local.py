"""Worker processes on this machine, one per slot, reused; one that dies costs one cell and is replaced."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.execution.protocol import CellTask, Ended, Event, Progressed, Started
from bench.execution.worker import serve
from bench.machine.devices import Slot

if TYPE_CHECKING:
    from bench.cells import Cell
    from results.record import Failure

_LOG_LINES = 40
_LOG_BYTES = 16_000
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class LocalWorkers:
    """Runs cells in worker processes of this machine; an :class:`bench.execution.protocol.Executor`.

    Args:
        slots: One worker each.
        logs: Folder for what the workers print, one file each.
        task: What they do with a cell.
        time_limit: Seconds after which a cell is given up and fails, the start of its process included; ``None`` for
            no limit.
    """

    def __init__(self, slots: Sequence[Slot], logs: Path, task: CellTask, time_limit: float | None = None) -> None:
        self._slots = slots
        self._time_limit = time_limit
        self._logs = logs
        self._task = task

    def run(self, cells: "Sequence[Cell]") -> Generator[Event]:
        """Run the cells and yield what happens to them, each end as soon as it is there.

        When the iterator is closed or an exception passes through, the workers are killed with what they were doing.

        Raises:
            ResultError: A record cannot be written, for example because the disk is full.
        """
        waiting = deque(cells)
        workers: dict[Slot, _Worker] = {}
        try:
            while waiting or any(worker.cell for worker in workers.values()):
                for slot in self._slots:
                    worker = workers.get(slot)
                    if waiting and (worker is None or worker.cell is None):
                        worker = workers[slot] = worker or _Worker(slot, self._logs, self._task)
                        yield worker.start(waiting.popleft())
                busy = [worker for worker in workers.values() if worker.cell]
                wait(
                    [*(worker.connection for worker in busy), *(worker.process.sentinel for worker in busy)],
                    None if self._time_limit is None else 1,
                )
                for worker in busy:
                    yield from worker.events()
                    if self._time_limit is not None:
                        yield from worker.ended_late(self._time_limit)
                    if worker.retired:
                        workers.pop(worker.slot).stop()
        finally:
            for worker in workers.values():
                worker.stop()


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, slot: Slot, logs: Path, task: CellTask) -> None:
        self.slot = slot
        self.cell: Cell | None = None
        self.retired = False
        self._task = task
        self._log = logs / f"worker-{slot.index}.log"
        self._log_start = 0
        self._begun = 0.0
        # Fork would copy threads' locks and the CUDA state in whatever condition they are.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=serve, args=(theirs, slot, self._log, task), daemon=True)
        with _quiet_start(slot):
            self.process.start()
        theirs.close()

    def start(self, cell: "Cell") -> Started:
        """Hand the worker a cell."""
        self.cell, self._begun = cell, time.monotonic()
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with suppress(OSError):  # it has died in between: its sentinel says so
            self.connection.send(cell)
        return Started(self.slot, cell)

    def events(self) -> Iterator[Event]:
        """What the worker has said since last time; that it died, if it did.

        Raises:
            ResultError: It could not write a record.
        """
        from methods.detector import Progress

        try:
            while self.cell and self.connection.poll():
                message, cell = self.connection.recv(), self.cell
                if isinstance(message, Progress):
                    yield Progressed(self.slot, cell, message)
                    continue
                if isinstance(message, Exception):
                    raise message
                self.cell = None
                self.retired = message.failure is not None and message.failure.kind == "memory"
                yield Ended(self.slot, cell, message)
        except (EOFError, OSError):
            self.process.join(5)
        if self.cell and not self.process.is_alive():
            cell, self.cell, self.retired = self.cell, None, True
            yield Ended(self.slot, cell, self._task.record_death(cell, self.slot, self._death()))

    def ended_late(self, limit: float) -> Iterator[Event]:
        """End the process of a cell that has taken more seconds than it may, and record that.

        Raises:
            ResultError: The record cannot be written.
        """
        from results.record import Failure

        if self.cell is None or time.monotonic() - self._begun <= limit:
            return
        cell, self.cell, self.retired = self.cell, None, True
        self.process.kill()
        self.process.join()
        tail = log_tail(self._log, self._log_start)
        failure = Failure(kind="killed", reason=f"it was not done after the {limit:g} s of --time-limit", log_tail=tail)
        yield Ended(self.slot, cell, self._task.record_death(cell, self.slot, failure))

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        if self.cell is None and not self.retired:
            self.process.join(2)  # idle: it ends by itself when the connection closes
        self.process.kill()
        self.process.join()

    def _death(self) -> "Failure":
        from results.record import Failure

        code = self.process.exitcode or 0
        tail = log_tail(self._log, self._log_start)
        if code >= 0:
            return Failure(kind="bug", reason=f"the worker process ended with exit code {code}", log_tail=tail)
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return Failure(kind="killed", reason=f"the worker process was ended by {name}{hint}", log_tail=tail)


@contextmanager
def _quiet_start(slot: Slot) -> Iterator[None]:
    """What a new process must have from its first instruction: Ctrl-C held back, and its number of threads.

    Unpickling its arguments imports numpy, before any of its own code could set either.
    """
    threads = dict.fromkeys(_THREAD_VARIABLES, str(slot.threads))
    before = {name: os.environ.get(name) for name in threads}
    with _uninterrupted():
        os.environ.update(threads)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back from processes started within, and any request to end from this one until they are started."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started by itself it would let Ctrl-C through again
    requests: list[int] = []
    # The mask is for the new process: here, another thread may take the signal, and this one has to act upon it.
    handlers = {
        name: signal.signal(name, lambda number, _: requests.append(number)) for name in (signal.SIGINT, signal.SIGTERM)
    }
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        for name, handler in handlers.items():
            signal.signal(name, handler)
    if requests:
        raise KeyboardInterrupt


def log_tail(log: Path, start: int) -> str:
    """The last lines that a worker printed after byte ``start`` of its log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - _LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-_LOG_LINES:])
