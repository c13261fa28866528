"""The host: what it is, and how busy it was while something was timed."""

import gc
import hashlib
import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.machine.devices import Slot, usable_cores
from bench.machine.environment import environment
from methods.common.precision import cpu_features
from results.timing_record import Gpu, HostState, Machine

_INSTRUCTIONS = ("avx2", "avx512", "amx", "asimd", "sve")
_CONTROL_GROUP = Path("/sys/fs/cgroup/cpu.stat")
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
_MACHINE_ID = Path("/etc/machine-id")
_SALT = b"anomaly-bench timing"


def describe_machine(slot: Slot, gpu: Gpu | None, gpu_uuid: str = "") -> Machine:
    """Say what machine this is, without anything that tells whose.

    Args:
        slot: Device and threads.
        gpu: The GPU that is timed; ``None`` for the CPU.
        gpu_uuid: The driver's identity of it.
    """
    known = environment(slot)
    return Machine(
        id=machine_id(gpu_uuid),
        cpu=known.cpu,
        cores=usable_cores(),
        instructions=sorted(name for name in cpu_features() if name.startswith(_INSTRUCTIONS)),
        memory_bytes=psutil.virtual_memory().total,
        platform=platform.platform(),
        python=known.python,
        packages=known.packages,
        git_commit=known.git_commit,
        git_dirty=known.git_dirty,
        gpu=gpu,
    )


def machine_id(gpu_uuid: str) -> str:
    """Twelve hexadecimal digits that are the same whenever this host, with this GPU, is described again."""
    try:
        host = _MACHINE_ID.read_text().strip()
    except OSError:
        host = f"{uuid.getnode():x}"
    return hashlib.sha256(_SALT + f"{host}/{platform.node()}/{gpu_uuid}".encode()).hexdigest()[:12]


@dataclass
class HostWatch:
    """What was seen of the host; whole when the watch has ended."""

    state: HostState | None = None


@contextmanager
def watch_host() -> Iterator[HostWatch]:
    """Watch how busy the host is, and keep Python's garbage collector from running meanwhile."""
    watch = HostWatch()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    start, own, before, throttled = time.perf_counter(), time.process_time(), _cpu_times(), _throttled()
    try:
        yield watch
    finally:
        seconds, own_seconds = time.perf_counter() - start, time.process_time() - own
        now, throttled_now = _cpu_times(), _throttled()
        enabled = gc.isenabled()
        if collected:
            gc.enable()
    available = seconds * len(now)
    elsewhere = sum(map(_busy, now)) - sum(map(_busy, before)) - own_seconds
    watch.state = HostState(
        load=load,
        steal=max(0.0, _stolen(now) - _stolen(before)) / available if hasattr(now[0], "steal") else None,
        throttled_seconds=None if throttled is None or throttled_now is None else throttled_now - throttled,
        busy_elsewhere=share_taken(elsewhere, available, seconds * min(len(now), _limit() or len(now))),
        garbage_collector=enabled,
    )


def share_taken(elsewhere: float, available: float, usable: float) -> float:
    """Share of the time that a process may use which others have taken.

    Args:
        elsewhere: Seconds that others have used of the CPUs that the process may run on.
        available: Seconds of all of these CPUs.
        usable: Seconds that its control group may use of them, at most ``available``. What others use beside these
            takes nothing away.
    """
    left = available - max(0.0, elsewhere)
    return max(0.0, usable - left) / usable


def _cpu_times() -> list[Any]:
    """Times of each CPU that this process may run on; of every one where they cannot be told apart."""
    every = psutil.cpu_times(percpu=True)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(every))
    return [every[number] for number in sorted(allowed) if number < len(every)] or every


def _stolen(times: list[Any]) -> float:
    return float(sum(one.steal for one in times))


def _limit() -> float | None:
    """How many CPUs this control group may keep busy at once; ``None`` without such a limit."""
    try:
        quota, period = _CPU_LIMIT.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no limit
        return None


def _busy(times: Any) -> float:
    """Seconds in which a CPU did something; a guest's are among the user's."""
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "steal", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)


def _throttled() -> float | None:
    """Seconds for which this control group has been held back; ``None`` where that is not known."""
    try:
        lines = _CONTROL_GROUP.read_text().splitlines()
    except OSError:
        return None
    values = dict(line.split(maxsplit=1) for line in lines if " " in line)
    return int(values["throttled_usec"]) / 1e6 if values.get("throttled_usec", "").isdigit() else None
