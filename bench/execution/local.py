"""Worker processes on this machine, one per slot, reused; one that dies costs one cell and is replaced."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.execution.events import Assignment, Ended, Event, Interrupted, Progressed, Started, Waiting
from bench.execution.protocol import CellSource, CellTask
from bench.execution.supply import LOOK_AGAIN
from bench.execution.worker import serve
from bench.machine.devices import Slot

if TYPE_CHECKING:
    from results.record import Failure

_LOG_LINES = 40
_LOG_BYTES = 16_000
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class CellLimits:
    """What a cell may take; ``None`` for no limit.

    Attributes:
        seconds: The start of its process included.
        memory: Bytes of main memory, of its process and those that this has started.
    """

    seconds: float | None = None
    memory: int | None = None


NO_LIMITS = CellLimits()


class LocalWorkers:
    """Runs cells in worker processes of this machine; an :class:`bench.execution.protocol.Engine`.

    Args:
        slots: One worker each.
        logs: Folder for what the workers print, one file each.
        task: What they do with a cell.
        limits: Of a cell: one that exceeds them is ended and fails.
        logs_of: Distinguishes the log files of this run from those of others that share the folder.
    """

    def __init__(
        self, slots: Sequence[Slot], logs: Path, task: CellTask, limits: CellLimits = NO_LIMITS, logs_of: str = ""
    ) -> None:
        self._slots = slots
        self._limits = limits
        self._logs = logs
        self._logs_of = logs_of
        self._task = task

    def run(self, supply: CellSource) -> Generator[Event]:
        """Run cells until all are recorded, and yield what happens to them, each end as soon as it is there.

        When the iterator is closed or an exception passes through, the workers are killed with what they were doing.

        Raises:
            ResultError: A record or a claim cannot be written, for example because the disk is full.
        """
        workers: dict[Slot, _Worker] = {}
        try:
            while supply.is_open or any(worker.assignment for worker in workers.values()):
                yield from self._hand_out(supply, workers)
                yield from supply.recorded_elsewhere()
                busy = [worker for worker in workers.values() if worker.assignment]
                if busy:
                    # Not for ever: a cancelled Ray task hears of it between two calls only.
                    wait(
                        [*(worker.connection for worker in busy), *(worker.process.sentinel for worker in busy)],
                        LOOK_AGAIN,
                    )
                elif supply.is_open:
                    if supply.held_elsewhere:
                        yield Waiting(supply.held_elsewhere)
                    time.sleep(LOOK_AGAIN)
                for worker in busy:
                    yield from worker.events(supply)
                    yield from worker.exceeding(self._limits, supply)
                    if worker.retired:
                        workers.pop(worker.slot).stop()
        finally:
            for worker in workers.values():
                worker.stop()

    def _hand_out(self, supply: CellSource, workers: "dict[Slot, _Worker]") -> Iterator[Event]:
        """Give every idle worker a cell, and start workers where there are cells for them."""
        for slot in self._slots:
            worker = workers.get(slot)
            if worker is not None and worker.assignment:
                continue
            assignment = supply.take()
            if assignment is None:
                return
            worker = workers[slot] = worker or _Worker(slot, self._log(slot), self._task)
            yield worker.start(assignment)

    def _log(self, slot: Slot) -> Path:
        return self._logs / f"worker-{self._logs_of}{slot.index}.log"


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, slot: Slot, log: Path, task: CellTask) -> None:
        self.slot = slot
        self.assignment: Assignment | None = None
        self.retired = False
        self._task = task
        self._log = log
        self._log_start = 0
        self._begun = 0.0
        # Fork would copy threads' locks and the CUDA state in whatever condition they are.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=serve, args=(theirs, slot, self._log, task), daemon=True)
        with _quiet_start(slot):
            self.process.start()
        theirs.close()

    def start(self, assignment: Assignment) -> Started:
        """Hand the worker a cell."""
        self.assignment, self._begun = assignment, time.monotonic()
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with suppress(OSError):  # it has died in between: its sentinel says so
            self.connection.send(assignment)
        return Started(self.slot, assignment.cell)

    def events(self, supply: CellSource) -> Iterator[Event]:
        """What the worker has said since last time; that it died, if it did.

        Raises:
            ResultError: It could not write a record.
        """
        from methods.detector import Progress

        try:
            while self.assignment and self.connection.poll():
                message, assignment = self.connection.recv(), self.assignment
                if isinstance(message, Progress):
                    yield Progressed(self.slot, assignment.cell, message)
                    continue
                if isinstance(message, Exception):
                    raise message
                self.assignment = None
                self.retired = message.failure is not None and message.failure.kind == "memory"
                supply.ended(assignment)
                yield Ended(self.slot, assignment.cell, message)
        except (EOFError, OSError):
            self.process.join(5)
        if self.assignment and not self.process.is_alive():
            failure = self._death()
            if failure.kind == "killed" and supply.retry(self.assignment, failure):
                cell, self.assignment, self.retired = self.assignment.cell, None, True
                yield Interrupted(self.slot, cell, failure.reason)
            else:
                yield self._given_up(failure, supply)

    def exceeding(self, limits: CellLimits, supply: CellSource) -> Iterator[Event]:
        """End the process of a cell that takes more than it may, and record that.

        Raises:
            ResultError: The record cannot be written.
        """
        from results.record import Failure

        if self.assignment is None:
            return
        if limits.seconds is not None and time.monotonic() - self._begun > limits.seconds:
            reason = f"it was not done after the {limits.seconds:g} s of --cell-timeout"
            yield self._given_up(Failure(kind="killed", reason=reason), supply)
        elif limits.memory is not None and (taken := _resident(self.process.pid)) > limits.memory:
            reason = f"it took {taken / 1e9:.1f} GB of memory, and --cell-memory is {limits.memory / 1e9:g}"
            yield self._given_up(Failure(kind="memory", reason=reason), supply)

    def _given_up(self, failure: "Failure", supply: CellSource) -> Ended:
        """End the process, if it still lives, and record why its cell has no metrics."""
        assignment = self.assignment
        assert assignment is not None
        self.assignment, self.retired = None, True
        self.process.kill()
        self.process.join()
        tail = failure.log_tail or log_tail(self._log, self._log_start)
        record = self._task.record_failure(assignment, self.slot, failure.model_copy(update={"log_tail": tail}))
        supply.ended(assignment)
        return Ended(self.slot, assignment.cell, record)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.connection.close()
        if self.assignment is None and not self.retired:
            self.process.join(2)  # idle: it ends by itself when the connection closes
        self.process.kill()
        self.process.join()

    def _death(self) -> "Failure":
        from results.record import Failure

        code = self.process.exitcode or 0
        if code >= 0:
            return Failure(kind="bug", reason=f"the worker process ended with exit code {code}")
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return Failure(kind="killed", reason=f"the worker process was ended by {name}{hint}")


def _resident(process: int | None) -> int:
    """Bytes of main memory that a process and those that it has started hold."""
    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(process)
        for one in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                total += one.memory_info().rss
    return total


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
    """Hold back what :func:`bench.execution.worker.leave_to_parent` ignores from processes started within.

    Any request to end this process is put off until they are started.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # started by itself it would let Ctrl-C through again
    requests: list[int] = []
    # The mask is for the new process: here, another thread may take the signal, and this one has to act upon it.
    handlers = {
        name: signal.signal(name, lambda number, _: requests.append(number)) for name in (signal.SIGINT, signal.SIGTERM)
    }
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR2})
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
