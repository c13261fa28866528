"""Run passes of one detector and keep what each took."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.timing.clocks import Clock, Reading
from bench.timing.sampling import SamplingRules
from results.timing_record import Sampling


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
    stop_reason: str

    def samples(self) -> dict[str, NDArray[np.float64]]:
        """Milliseconds of each pass, by clock; only of clocks that there are."""
        columns = {
            "wall_ms": [reading.wall for reading in self.readings],
            "cpu_ms": [reading.cpu for reading in self.readings],
            "event_ms": [reading.event for reading in self.readings],
            "enqueue_ms": [reading.enqueue for reading in self.readings],
        }
        return {name: np.array(values, float) for name, values in columns.items() if None not in values}


def measure(run: Callable[[], object], clock: Clock, rules: SamplingRules) -> Measurement:
    """Warm up, then time passes until the rules are content.

    Args:
        run: The next pass.
        clock: What times one.
        rules: When the warm-up ends, and when the samples do.
    """
