"""Run passes of one detector and keep what each took."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.timing.clocks import Clock, Reading
from bench.timing.sampling import SamplingRules, StopReason
from results.timing_record import AfterIdle
from results.timing_store import Samples

RESTS = 5
"""After which a first pass is timed."""


@dataclass(frozen=True)
class Measurement:
    """Every timed pass of a process.

    Attributes:
        readings: In order.
        warm_up: Passes before them.
        warm_up_seconds: They took so long.
        seconds: The timed passes took so long.
        stop_reason: Why there are not more.
    """

    readings: tuple[Reading, ...]
    warm_up: int
    warm_up_seconds: float
    seconds: float
    stop_reason: StopReason

    def samples(self) -> Samples:
        """Milliseconds of each pass, by clock."""
        events = [reading.event for reading in self.readings if reading.event is not None]
        enqueued = [reading.enqueue for reading in self.readings if reading.enqueue is not None]
        return Samples(
            wall_ms=np.array([reading.wall for reading in self.readings]),
            cpu_ms=np.array([reading.cpu for reading in self.readings]),
            event_ms=np.array(events) if events else None,
            enqueue_ms=np.array(enqueued) if enqueued else None,
        )


def measure(
    run: Callable[[], object],
    clock: Clock,
    rules: SamplingRules,
    now: Callable[[], float] = time.perf_counter,
    *,
    before: Callable[[], object] | None = None,
) -> Measurement:
    """Warm up, then time passes until the rules are content.

    Args:
        run: Does the next pass.
        clock: What times one.
        rules: When the warm-up ends, and when the samples do.
        now: Seconds, monotonic.
        before: What is done before each pass and is no part of it.
    """

    def time_one() -> Reading:
        if before is not None:
            before()
        return clock.time(run)

    start, walls = now(), [time_one().wall]
    while not rules.is_warm(walls, now() - start):
        walls.append(time_one().wall)
    warm_up, warm_up_seconds = len(walls), now() - start
    start, readings = now(), [time_one()]
    walls = [readings[0].wall]
    while (reason := rules.stops(walls, now() - start)) is None:
        readings.append(time_one())
        walls.append(readings[-1].wall)
    return Measurement(tuple(readings), warm_up, warm_up_seconds, now() - start, reason)


def time_after_idle(
    run: Callable[[], object], clock: Clock, seconds: float, sleep: Callable[[float], object] = time.sleep
) -> AfterIdle:
    """Time the first pass after a rest, several times.

    Args:
        run: Does the next pass.
        clock: What times one.
        seconds: Of each rest.
        sleep: Rest for so many seconds.
    """
    milliseconds = []
    for _ in range(RESTS):
        sleep(seconds)
        milliseconds.append(clock.time(run).wall)
    return AfterIdle(seconds=seconds, milliseconds=milliseconds)
