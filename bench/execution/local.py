"""Worker processes, one per slot, reused; one that dies costs one cell and is replaced."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench.machine.devices import Slot
from bench.machine.memory import keep_freed_memory

if TYPE_CHECKING:  # they load torch, which a starting worker must not do before it has set its threads
    from bench.cell import Measurement
    from bench.datasets.cache import Cache
    from bench.plan import Cell
    from methods.detector import Progress
    from results.record import Failure

_REPORT_INTERVAL = 0.2
_LOG_LINES = 40
_LOG_BYTES = 16_000
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


@dataclass(frozen=True, eq=False)
class Event:
    """Something that happened to a cell.

    Attributes:
        slot: Where.
        cell: Which.
        what: ``None`` when it started, its progress, or its outcome.
    """

    slot: Slot
    cell: "Cell"
    what: "Progress | Measurement | Failure | None"


class Workers:
    """Runs cells in worker processes.

    Args:
        slots: One worker each.
        logs: Folder for what the workers print, one file each.
        cache: Where decoded images are kept.
        keep_maps: Return each cell's anomaly maps too.
    """

    def __init__(self, slots: Sequence[Slot], logs: Path, cache: "Cache", *, keep_maps: bool) -> None:
        self._slots = slots
        self._logs = logs
        self._settings = cache, keep_maps

    def run(self, cells: "Sequence[Cell]") -> Generator[Event]:
        """Run the cells and yield what happens to them, outcomes as soon as they are there.

        When the iterator is closed or an exception passes through, the workers are killed with what they were doing.
        """
        waiting = deque(cells)
        workers: dict[Slot, _Worker] = {}
        try:
            while waiting or any(worker.cell for worker in workers.values()):
                for slot in self._slots:
                    worker = workers.get(slot)
                    if waiting and (worker is None or worker.cell is None):
                        worker = workers[slot] = worker or _Worker(slot, self._logs, *self._settings)
                        worker.start(waiting.popleft())
                        assert worker.cell is not None
                        yield Event(slot, worker.cell, None)
                busy = [worker for worker in workers.values() if worker.cell]
                wait([*(worker.connection for worker in busy), *(worker.process.sentinel for worker in busy)])
                for worker in busy:
                    yield from worker.events()
                    if worker.retired:
                        workers.pop(worker.slot).stop()
        finally:
            for worker in workers.values():
                worker.stop()


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, slot: Slot, logs: Path, cache: "Cache", keep_maps: bool) -> None:
        self.slot = slot
        self.cell: Cell | None = None
        self.retired = False
        self._log = logs / f"worker-{slot.index}.log"
        self._log_start = 0
        # Fork would copy threads' locks and the CUDA state in whatever condition they are.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, slot, self._log, cache, keep_maps)
        self.process: BaseProcess = context.Process(target=_serve, args=arguments, daemon=True)
        with _quiet_start(slot):
            self.process.start()
        theirs.close()

    def start(self, cell: "Cell") -> None:
        """Hand the worker a cell."""
        self.cell = cell
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with suppress(OSError):  # it has died in between: its sentinel says so
            self.connection.send(cell)

    def events(self) -> Iterator[Event]:
        """What the worker has said since last time; that it died, if it did."""
        from methods.detector import Progress
        from results.record import Failure

        assert self.cell is not None
        try:
            while self.cell and self.connection.poll():
                what, cell = self.connection.recv(), self.cell
                if not isinstance(what, Progress):
                    self.cell = None
                    self.retired = isinstance(what, Failure) and what.kind == "memory"
                yield Event(self.slot, cell, what)
        except (EOFError, OSError):
            self.process.join(5)
        if self.cell and not self.process.is_alive():
            cell, self.cell, self.retired = self.cell, None, True
            yield Event(self.slot, cell, self._death())

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


def failure_of(error: BaseException) -> "Failure":
    """Why a cell failed, from the exception that ended it."""
    from bench.errors import user_errors
    from results.record import Failure

    text = str(error).strip()
    kind: Literal["error", "memory", "bug"] = "bug"
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
        kind = "memory"
    elif isinstance(error, user_errors()):
        return Failure(kind="error", reason=text.splitlines()[0] if text else type(error).__name__, log_tail=text)
    first = text.splitlines()[0] if text else "no message"
    reason = f"out of memory: {first}" if kind == "memory" else f"{type(error).__name__}: {first}"
    return Failure(kind=kind, reason=reason, log_tail="".join(traceback.format_exception(error)[-20:]))


def _serve(connection: Connection, slot: Slot, log: Path, cache: "Cache", keep_maps: bool) -> None:
    """The worker process: receive a cell, run it, send what came of it, until the parent is gone."""
    _prepare(slot, log)
    from bench.cell import measure
    from methods.detector import Progress
    from metrics import warm_up
    from results.record import Failure

    warm_up()  # of which no cell's time shall hold anything
    last = 0.0

    def report(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_INTERVAL or progress.done in (0, progress.total):
            last = time.monotonic()
            connection.send(progress)

    while True:
        try:
            cell = connection.recv()
        except EOFError:
            return
        try:
            outcome: Measurement | Failure = measure(cell, slot, cache, report, keep_maps=keep_maps)
        except Exception as error:
            with suppress(OSError):  # the disk is full
                traceback.print_exc()
            outcome = failure_of(error)
        connection.send(outcome)
        if isinstance(outcome, Failure) and outcome.kind == "memory":
            return  # whatever still holds the memory goes with the process


def _prepare(slot: Slot, log: Path) -> None:
    """Set up signals, output and threads, before anything heavy is imported."""
    import faulthandler

    # Ctrl-C reaches the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products need

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    faulthandler.enable(sys.stderr)

    keep_freed_memory()
    import torch

    torch.set_num_threads(slot.threads)


def _end_with(parent: BaseProcess) -> None:
    """End this process at once when the parent dies, even by SIGKILL: its sentinel closes."""
    parent.join()
    os._exit(1)
