"""When the warm-up ends, and when there are enough samples: rules that are told of one pass after the other."""

import statistics
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.timing.protocols import TimingProtocol
from bench.timing.statistics import half_widths

StopReason = Literal["count", "precise", "time budget", "noise"]

WARM_UP_SECONDS = 2.0
MOST_SECONDS = 60.0
"""Of an adaptive protocol's samples."""
STEADY = 0.005
"""An adaptive warm-up ends when the medians of its last two tenths differ by less, as a share."""
PRECISE = {0.5: 0.005, 0.99: 0.02}
"""Half widths of the intervals of median and 99th percentile, as shares, at which an adaptive protocol has enough."""
FEWEST = 3
"""Samples that even a spent time budget leaves room for."""
_WARM_UP_SHARE = 1 / 3


@dataclass(frozen=True)
class SamplingRules:
    """When to stop.

    Attributes:
        protocol: Whose counts they are.
        time_budget: Seconds of passes at most, warm-up included, which takes up to a third; ``None`` for no limit.
    """

    protocol: TimingProtocol
    time_budget: float | None = None

    def is_warm(self, milliseconds: list[float], seconds: float) -> bool:
        """Whether the warm-up has ended.

        Args:
            milliseconds: Of its passes so far, at least one.
            seconds: Since its beginning.
        """
        if self.time_budget is not None and seconds >= _WARM_UP_SHARE * self.time_budget:
            return True
        count = len(milliseconds)
        if count < self.protocol.warm_up:
            return False
        if not self.protocol.adaptive:
            return True
        if seconds < WARM_UP_SECONDS or count % max(1, self.protocol.warm_up // 10):
            return False
        tenth = count // 10
        last, before = (statistics.median(milliseconds[-k * tenth :][:tenth]) for k in (1, 2))
        return abs(last / before - 1) < STEADY

    def stops(self, milliseconds: list[float], seconds: float) -> StopReason | None:
        """Why no further pass is needed; ``None`` if one is.

        Args:
            milliseconds: Of the samples so far, at least one.
            seconds: Since the first of them.
        """
        count = len(milliseconds)
        left = None if self.time_budget is None else (1 - _WARM_UP_SHARE) * self.time_budget
        if left is not None and seconds >= left and count >= FEWEST:
            return "time budget"
        if count < self.protocol.passes:
            return None
        if not self.protocol.adaptive:
            return "count"
        if seconds >= MOST_SECONDS:
            return "noise"
        return "precise" if self._looks(count) and _is_precise(milliseconds) else None

    def _looks(self, count: int) -> bool:
        """Whether precision is looked at now: with each doubling, as it takes long and the device idles meanwhile."""
        times, rest = divmod(count, self.protocol.passes)
        return not rest and times.bit_count() == 1


def _is_precise(milliseconds: list[float]) -> bool:
    widths = half_widths(np.array(milliseconds), list(PRECISE))
    return all(width <= most for width, most in zip(widths, PRECISE.values(), strict=True))
