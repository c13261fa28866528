"""The energy of an image: what the GPU's board takes for passes, above what it takes while it waits."""

import random
import time
from collections.abc import Callable

from results.timing_record import Energy

REPEATS = 3
LOOP_SECONDS = 10.0
"""At least: the counter is updated some ten times a second, and on some GPUs power is sampled a quarter of the time."""
IDLE_SECONDS = 5.0
PERIOD = 0.1
"""Seconds between updates of the counter: each loop begins at another moment of it."""


def measure_energy(
    run: Callable[[], object],
    images: int,
    counter: Callable[[], float],
    *,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    seed: int = 0,
) -> Energy:
    """Measure the energy of passes by the counter of a GPU's board.

    Args:
        run: Does the next pass and returns when it has ended.
        images: Per pass.
        counter: Millijoules since some moment.
        now: Seconds, monotonic.
        sleep: Rest for so many seconds.
        seed: Of the moments at which loops begin.

    Returns:
        Its value is the mean of the repeats.
    """
    start, before = now(), counter()
    sleep(IDLE_SECONDS)
    idle = (counter() - before) / (now() - start)
    draw, repeats = random.Random(seed), []
    for _ in range(REPEATS):
        sleep(draw.uniform(0, PERIOD))
        start, before, passes = now(), counter(), 0
        while now() - start < LOOP_SECONDS:
            run()
            passes += 1
        taken = counter() - before - idle * (now() - start)
        repeats.append(taken / (passes * images))
    value = sum(repeats) / REPEATS
    if value <= 0:
        return Energy(idle_watts=idle / 1e3, repeats=repeats, unknown="passes took no more than waiting did")
    return Energy(mj_per_image=value, repeats=repeats, idle_watts=idle / 1e3)
