"""The GPU by NVIDIA's management library (NVML): what it is, and what state it was in, seen from another process.

A thread of the process that is timed would share the interpreter with it. Nothing here changes a setting.
"""

import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import torch

from results.timing_record import Gpu, GpuState

HERTZ = 20
REASONS = {
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Why clocks are lowered, by NVML's bit; an idle GPU's are no throttling."""


@dataclass(frozen=True)
class GpuSample:
    """One look at a GPU.

    Attributes:
        sm_mhz: Clock of its multiprocessors.
        memory_mhz: Clock of its memory.
        celsius: Temperature.
        watts: Power of the board.
        reasons: Bits of why clocks are lowered.
        others: Processes on it that are not ours.
        own_bytes: Memory of our process; ``None`` where the driver does not say.
    """

    sm_mhz: int
    memory_mhz: int
    celsius: int
    watts: float
    reasons: int
    others: int
    own_bytes: int | None


@dataclass
class GpuWatch:
    """What was seen of a GPU; whole when the watch has ended.

    Attributes:
        state: ``None`` where there is no NVML.
        reason: Why there is none.
    """

    state: GpuState | None = None
    reason: str = ""
    samples: list[GpuSample] = field(default_factory=list)


def describe_gpu(device: torch.device) -> tuple[Gpu, str]:
    """What the GPU is, and the driver's identity of it; what NVML does not tell is ``None`` and has its reason."""
    properties = torch.cuda.get_device_properties(device)
    known: dict[str, Any] = {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "l2_bytes": getattr(properties, "L2_cache_size", None),
    }
    identity = str(getattr(properties, "uuid", ""))
    try:
        nvml = _nvml()
        handle = _handle(nvml, identity, device)
    except Exception as error:  # NVML raises errors of its own, or is missing
        unknown = dict.fromkeys(("power_limit_watts", "default_power_limit_watts", "max_sm_mhz", "pcie", "driver"))
        return Gpu(**known, unknown=dict.fromkeys(unknown, f"no NVML: {error}")), identity
    queries: dict[str, Callable[[], Any]] = {
        "power_limit_watts": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
        "default_power_limit_watts": lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1e3,
        "max_sm_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "pcie": lambda: (
            f"{nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle)} x{nvml.nvmlDeviceGetCurrPcieLinkWidth(handle)}"
        ),
        "driver": lambda: _text(nvml.nvmlSystemGetDriverVersion()),
        "part": lambda: "MIG" if nvml.nvmlDeviceGetMigMode(handle)[0] else "",
    }
    unknown_fields: dict[str, str] = {}
    for name, query in queries.items():
        try:
            known[name] = query()
        except Exception as error:
            unknown_fields[name] = str(error)
    unknown_fields.pop("part", None)  # a GPU that knows no parts is whole
    return Gpu(**known, unknown=unknown_fields), identity


@contextmanager
def watch_gpu(device: torch.device) -> Iterator[GpuWatch]:
    """Look at a GPU from a process of its own, ``HERTZ`` times a second, until the block ends."""
    watch = GpuWatch()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    identity = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    process = context.Process(target=_look, args=(theirs, identity, device.index or 0), daemon=True)
    process.start()
    theirs.close()
    try:
        ours.recv()  # it looks
        yield watch
    finally:
        with suppress(OSError, EOFError):
            ours.send(None)
            samples, reason = ours.recv()
            watch.samples, watch.reason = samples, reason
            watch.state = summarise(samples) if samples else None
        process.join(timeout=5)
        if process.is_alive():
            process.terminate()


def energy_counter(device: torch.device) -> Callable[[], float] | str:
    """What reads the millijoules that a GPU's board has taken since its driver was loaded; or why nothing does."""
    try:
        nvml = _nvml()
        handle = _handle(nvml, str(getattr(torch.cuda.get_device_properties(device), "uuid", "")), device)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception as error:  # NVML raises errors of its own, or is missing
        return f"no counter of energy: {error}"
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def summarise(samples: Sequence[GpuSample]) -> GpuState:
    """What the samples say together; clocks that never changed are called locked."""
    clocks = [sample.sm_mhz for sample in samples]
    degrees = [sample.celsius for sample in samples]
    memory = [sample.own_bytes for sample in samples if sample.own_bytes is not None]
    shares = {
        name: sum(bool(sample.reasons & bit) for sample in samples) / len(samples) for bit, name in REASONS.items()
    }
    return GpuState(
        samples=len(samples),
        sm_mhz=(min(clocks), round(statistics.median(clocks)), max(clocks)),
        memory_mhz=round(statistics.median(sample.memory_mhz for sample in samples)),
        celsius=(degrees[0], degrees[-1], max(degrees)),
        watts=statistics.median(sample.watts for sample in samples),
        throttled={name: share for name, share in shares.items() if share},
        other_processes=max(sample.others for sample in samples),
        clock_policy="floating" if min(clocks) != max(clocks) else "did not change",
        memory_bytes=max(memory) if memory else None,
    )


def _look(connection: Connection, identity: str, index: int) -> None:
    """Sample until the other side says something, then send what was seen, or why nothing was."""
    samples: list[GpuSample] = []
    reason = ""
    try:
        nvml = _nvml()
        handle = _handle(nvml, identity, torch.device("cuda", index))
        sample(nvml, handle, 0)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    parent = multiprocessing.parent_process()
    owner = parent.pid if parent is not None and parent.pid else 0
    connection.send("looking")
    while not connection.poll(1 / HERTZ):
        if not reason:
            with suppress(Exception):  # a single look may fail
                samples.append(sample(nvml, handle, owner))
    connection.send((samples, reason))


def sample(nvml: Any, handle: Any, owner: int) -> GpuSample:
    """Look once.

    Args:
        nvml: The module ``pynvml``.
        handle: Of the GPU.
        owner: Process whose memory is ours.
    """
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    own = [process.usedGpuMemory for process in processes if process.pid == owner]
    return GpuSample(
        sm_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        memory_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        celsius=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        watts=nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        reasons=nvml.nvmlDeviceGetCurrentClocksEventReasons(handle),
        # In a container process numbers differ, so that ours is among the others: one of them is.
        others=max(0, len(processes) - 1),
        own_bytes=own[0] if own else None,
    )


def _nvml() -> Any:
    import pynvml

    pynvml.nvmlInit()
    return pynvml


def _handle(nvml: Any, identity: str, device: torch.device) -> Any:
    """NVML counts GPUs otherwise than CUDA does: by the driver's identity, not by number, where that is known."""
    if identity:
        return nvml.nvmlDeviceGetHandleByUUID(identity if identity.startswith("GPU-") else f"GPU-{identity}")
    return nvml.nvmlDeviceGetHandleByIndex(device.index or 0)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
