"""A worker process: receives cells one after the other, runs and records them, and says how far it is."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.execution.protocol import CellTask
from bench.machine.devices import Slot, make_products_deterministic
from bench.machine.memory import keep_freed_memory

if TYPE_CHECKING:  # it loads torch, which must not happen before the threads are set
    from methods.detector import Progress

_REPORT_INTERVAL = 0.2


def serve(connection: Connection, slot: Slot, log: Path, task: CellTask) -> None:
    """Receive a cell, run it, send its progress and then its record, until the parent is gone.

    A record that cannot be written is sent as the ``ResultError`` that says so.

    Args:
        connection: To the parent.
        slot: Device and threads of this process.
        log: File for whatever is printed.
        task: What to do with a cell.
    """
    prepare(slot, log)
    from bench.machine.environment import environment
    from metrics import warm_up
    from results.errors import ResultError

    environment(slot)  # the state of the checkout is the one that this process has loaded its code from
    warm_up()  # of which no cell's time shall hold anything
    last = 0.0

    def report(progress: "Progress") -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_INTERVAL or progress.done in (0, progress.total):
            last = time.monotonic()
            connection.send(progress)

    while True:
        try:
            assignment = connection.recv()
        except EOFError:
            return
        try:
            record = task.run(assignment, slot, report)
        except ResultError as error:
            connection.send(error)
            return
        connection.send(record)
        if record.failure is not None and record.failure.kind == "memory":
            return  # whatever still holds the memory goes with the process


def prepare(slot: Slot, log: Path) -> None:
    """Set up signals, output and threads of this process, before anything heavy is imported."""
    import faulthandler

    leave_to_parent()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    make_products_deterministic()

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


def leave_to_parent() -> None:
    """Ignore Ctrl-C, which reaches the whole process group, and what schedulers send to all processes of a job.

    The parent decides what becomes of it; were this process to die first, its cell would seem to have failed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "pthread_sigmask"):
        return
    for name in (signal.SIGTERM, signal.SIGUSR2):
        # Not SIG_IGN, which would go on to other programs that this process starts.
        signal.signal(name, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR2})


def _end_with(parent: BaseProcess) -> None:
    """End this process at once when the parent dies, even by SIGKILL: its sentinel closes."""
    parent.join()
    os._exit(1)
