"""A production line: images come when a camera triggers, whether the one before has been judged or not.

Timing one pass after the other hides what happens when a pass takes longer than the line waits: the next image waits
too (coordinated omission). Here triggers are fixed in advance, and a response counts from its trigger.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from bench.timing.statistics import distribution
from results.timing_record import Line

Times = NDArray[np.float64]

SUSTAINABLE_AT = 1e-4
"""Probability of a miss that a line is to keep below, if its highest rate is asked for."""
CONFIDENCE = 0.95
_STEPS = 30
_AWAKE = 2e-3
"""Seconds before a trigger."""


@dataclass(frozen=True)
class Served:
    """What a line has seen.

    Attributes:
        response_ms: From each trigger to its map, waiting included.
        greatest_backlog: Most images that had been triggered and not yet been judged at once.
    """

    response_ms: Times
    greatest_backlog: int


def trigger_times(rate: float, count: int, jitter: float, seed: int) -> Times:
    """Milliseconds at which a camera triggers, ascending, the first at 0.

    Args:
        rate: Per second.
        count: Of triggers.
        jitter: Largest shift of each, either way, as a share of half the time between two.
        seed: Of the shifts.
    """
    period = 1e3 / rate
    shifts = np.random.default_rng(seed).uniform(-0.5, 0.5, count) * jitter * period
    shifts[0] = 0
    return np.arange(count) * period + shifts


def serve(triggers_ms: Times, service_ms: Times) -> Served:
    """Judge one image after the other, each as soon as it is triggered and the one before is done.

    Args:
        triggers_ms: Ascending, (N,).
        service_ms: What each takes, (N,).
    """
    # The end of each is the latest of: a trigger from which on there was no pause, and all services since.
    worked = np.cumsum(service_ms)
    ends = np.maximum.accumulate(triggers_ms - np.concatenate([[0.0], worked[:-1]])) + worked
    done_before = np.searchsorted(ends, triggers_ms, side="right")
    backlog = np.arange(1, len(triggers_ms) + 1) - done_before
    return Served(ends - triggers_ms, int(backlog.max()))


def miss_bound(missed: NDArray[np.bool_]) -> float:
    """Upper bound of the probability of a miss, at 95 % confidence (Clopper and Pearson 1934, one-sided).

    One pause makes a row of images late. Misses in a row tell as much as one does, and so fewer triggers: both are
    divided by the length of the row in which the average miss stands (Kish's design effect). Pauses so rare that none
    was seen are not known of: without a miss the bound is that of misses that come singly.

    Args:
        missed: Of each trigger in order, whether its map came too late, (N,).
    """
    count, triggers = int(missed.sum()), len(missed)
    if count == triggers:
        return 1.0
    edges = np.flatnonzero(np.diff(missed.astype(np.int8), prepend=0, append=0))
    rows = edges[1::2] - edges[::2]
    together = float(np.square(rows).sum() / count) if count else 1.0
    return float(special.betaincinv(count / together + 1, (triggers - count) / together, CONFIDENCE))


def sustainable_rate(
    service_ms: Times, deadline_ms: float, at: float = SUSTAINABLE_AT, *, jitter: float = 0.0, seed: int = 0
) -> float | None:
    """Highest rate per second at which measured passes, in their order, keep the deadline.

    Args:
        service_ms: Of passes, in order.
        deadline_ms: From trigger to map.
        at: Probability of a miss, whose bound at 95 % confidence is to be at most this.
        jitter: Of the triggers, as :func:`trigger_times` has it.
        seed: Of their shifts.

    Returns:
        ``None`` where not even the slowest line would: a pass is over the deadline too often, or so few passes were
        measured that such a probability cannot be shown (29,956 without a miss show one in 10,000).
    """

    def keeps(rate: float) -> bool:
        served = serve(trigger_times(rate, len(service_ms), jitter, seed), service_ms)
        return miss_bound(served.response_ms > deadline_ms) <= at

    low, high = 1e-3, 1e3 / float(service_ms.mean())
    if not keeps(low):
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def replay(
    triggers_ms: Times, run: Callable[[], object], now: Callable[[], float], wait_until: Callable[[float], object]
) -> tuple[Served, Times]:
    """Let a camera trigger, and judge each image when its turn comes.

    Args:
        triggers_ms: Ascending, (N,).
        run: Judges the next image, whole.
        now: Seconds, monotonic.
        wait_until: Returns when ``now`` says so.

    Returns:
        What the line has seen, and what each pass took, milliseconds (N,).
    """
    start = now()
    ends, service = np.empty(len(triggers_ms)), np.empty(len(triggers_ms))
    for number, trigger in enumerate(triggers_ms):
        wait_until(start + trigger / 1e3)
        begun = now()
        run()
        end = now()
        ends[number], service[number] = 1e3 * (end - start), 1e3 * (end - begun)
    done_before = np.searchsorted(ends, triggers_ms, side="right")
    backlog = np.arange(1, len(triggers_ms) + 1) - done_before
    return Served(ends - triggers_ms, int(backlog.max())), service


def wait_until(moment: float) -> None:
    """Return at a moment of ``time.perf_counter``: asleep as long as sleep is exact enough, then watching the clock."""
    asleep = moment - time.perf_counter() - _AWAKE
    if asleep > 0:
        time.sleep(asleep)
    while time.perf_counter() < moment:
        pass


def describe_line(served: Served, service_ms: Times, rate: float, deadline_ms: float, jitter: float) -> Line:
    """What a record says of a line."""
    missed = served.response_ms > deadline_ms
    return Line(
        rate=rate,
        arrivals="jitter" if jitter else "fixed",
        deadline_ms=deadline_ms,
        triggers=len(served.response_ms),
        missed=int(missed.sum()),
        miss_bound=miss_bound(missed),
        response=distribution(served.response_ms),
        greatest_backlog=served.greatest_backlog,
        sustainable_rate=sustainable_rate(service_ms, deadline_ms, jitter=jitter),
        sustainable_at=SUSTAINABLE_AT,
    )
