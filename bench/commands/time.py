"""``bench time``: latency and throughput of fitted detectors."""

from bench.commands.flags import console
from bench.options import TimingOptions


def time(options: TimingOptions) -> int:
    """Time fitted detectors: those that a run has kept, or methods, which are fitted first.

    Exit code: 0 all rows were timed, 1 a bug, 2 the command makes no sense, 3 a row could not be timed, or there is no
    GPU and --require-gpu was given, 130 interrupted.
    """
    from bench.speed import time_detectors

    return time_detectors(options, console())
