"""Where cells run: devices, and one slot per worker process."""

import os
from dataclasses import dataclass

from bench.errors import UsageError

CORES_PER_WORKER = 8
"""Beyond about so many threads the networks of this field gain little from more, and a second worker does."""


@dataclass(frozen=True)
class Slot:
    """The place of one worker process.

    Attributes:
        index: Counted from 0.
        device: ``cpu`` or ``cuda:N``.
        threads: CPU threads it may use.
    """

    index: int
    device: str
    threads: int


def usable_cores() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_products_deterministic() -> None:
    """Let cuBLAS compute the same product alike each time; call it before anything runs on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def choose_slots(device: str, workers: int | None, threads: int | None = None) -> list[Slot]:
    """Share devices and CPU cores out to worker processes.

    Args:
        device: ``auto`` (every GPU, else the CPU), ``cpu``, ``cuda`` (every GPU) or ``cuda:N``.
        workers: How many; ``None`` for one per GPU, on the CPU one per eight cores.
        threads: CPU threads of each; ``None`` for its share of the cores.

    Raises:
        UsageError: There is no such device.
    """
    devices = _devices(device)
    cores = usable_cores()
    count = workers or (max(1, cores // CORES_PER_WORKER) if devices == ["cpu"] else len(devices))
    each = threads or max(1, cores // count)
    return [Slot(index, devices[index % len(devices)], each) for index in range(count)]


def _devices(device: str) -> list[str]:
    if device == "cpu":
        return ["cpu"]
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    if device == "auto":
        return gpus or ["cpu"]
    chosen = gpus if device == "cuda" else [gpu for gpu in gpus if gpu == device]
    if chosen:
        return chosen
    raise UsageError(
        f"device {device!r} does not exist here\n  Allowed: {', '.join(['auto', 'cpu', *gpus])}\n"
        "  bench doctor says why a GPU is not usable."
    )
