"""Clocks: what one pass took, by the host and, on a GPU, by events in its stream."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from results.timing_record import Mode


@dataclass(frozen=True)
class Reading:
    """Milliseconds of one pass.

    Attributes:
        wall: By the host's clock, until the host has seen the end.
        cpu: Time of all threads of this process.
        event: Between events at the beginning and at the end of the work on the device; ``None`` on a CPU.
        enqueue: Until the host had handed all work over; ``None`` on a CPU.
    """

    wall: float
    cpu: float
    event: float | None = None
    enqueue: float | None = None


class Clock(Protocol):
    """Times one pass, whole: nothing of it may still be running when the clock is read."""

    @property
    def name(self) -> Literal["host", "cuda-events"]:
        """What a record calls it."""

    def time(self, run: Callable[[], object]) -> Reading:
        """Run a pass and say how long it took."""


class HostClock:
    """The host's clock, for what has ended when the call returns.

    Args:
        now: Nanoseconds, monotonic.
        cpu: Nanoseconds of all threads of this process.
    """

    name: Literal["host"] = "host"

    def __init__(
        self, now: Callable[[], int] = time.perf_counter_ns, cpu: Callable[[], int] = time.process_time_ns
    ) -> None:
        self._now, self._cpu = now, cpu

    def time(self, run: Callable[[], object]) -> Reading:
        """Run a pass and say how long it took."""
        cpu, start = self._cpu(), self._now()
        run()
        end = self._now()
        return Reading((end - start) / 1e6, (self._cpu() - cpu) / 1e6)


class StreamClock:
    """From the end of one call to the end of the next, for passes that overlap: together they are all of the time.

    Args:
        now: As of :class:`HostClock`.
        cpu: Likewise.
    """

    name: Literal["host"] = "host"

    def __init__(
        self, now: Callable[[], int] = time.perf_counter_ns, cpu: Callable[[], int] = time.process_time_ns
    ) -> None:
        self._now, self._cpu = now, cpu
        self._last = now(), cpu()

    def time(self, run: Callable[[], object]) -> Reading:
        """Run a pass and say how long ago the call before ended."""
        run()
        (start, cpu), self._last = self._last, (self._now(), self._cpu())
        return Reading((self._last[0] - start) / 1e6, (self._last[1] - cpu) / 1e6)


class CudaClock:
    """Events in the current stream of a GPU beside the host's clock; the host waits for the end of every pass.

    Both are needed: events alone miss what the host does before it hands work over, and the host's clock alone is read
    too early as soon as somebody forgets to wait.

    Args:
        device: ``cuda:N``.
        now: As of :class:`HostClock`.
        cpu: Likewise.
        event: Makes an event that records times.
        synchronise: Waits until the device is idle.
    """

    name: Literal["cuda-events"] = "cuda-events"

    def __init__(
        self,
        device: torch.device,
        now: Callable[[], int] = time.perf_counter_ns,
        cpu: Callable[[], int] = time.process_time_ns,
        event: Callable[[], Any] = lambda: torch.cuda.Event(enable_timing=True),
        synchronise: Callable[[torch.device], object] = torch.cuda.synchronize,
    ) -> None:
        self._device, self._now, self._cpu, self._synchronise = device, now, cpu, synchronise
        self._begin, self._end = event(), event()

    def time(self, run: Callable[[], object]) -> Reading:
        """Run a pass and say how long it took."""
        self._synchronise(self._device)
        cpu, start = self._cpu(), self._now()
        self._begin.record()
        run()
        handed_over = self._now()
        self._end.record()
        self._end.synchronize()
        end = self._now()
        return Reading(
            (end - start) / 1e6,
            (self._cpu() - cpu) / 1e6,
            self._begin.elapsed_time(self._end),
            (handed_over - start) / 1e6,
        )


def make_clock(device: torch.device, mode: Mode = "request") -> Clock:
    """The clock that can time work on a device."""
    if mode == "stream":
        return StreamClock()
    return CudaClock(device) if device.type == "cuda" else HostClock()
