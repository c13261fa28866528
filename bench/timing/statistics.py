"""Statistics of passes: order statistics that their number supports, and what tells that they are not alike."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from results.timing_record import Distribution

Samples = NDArray[np.float64]

CONFIDENCE = 0.99
OUTLIER_DEVIATIONS = 14.826
"""Median absolute deviations from the median: ten standard deviations of a normal distribution."""
BLOCK = 50
"""Passes that are resampled together: those next to each other are alike."""
RESAMPLES = 400


def distribution(milliseconds: Samples) -> Distribution:
    """Sum up the passes of one process.

    Args:
        milliseconds: Of each pass, at least one.

    Returns:
        Percentiles are order statistics, never interpolated; one that so few samples cannot bound at 99 % confidence
        without taking the slowest pass is ``None``.
    """
    ordered = np.sort(milliseconds)
    median = float(np.median(ordered))
    spread = float(np.median(np.abs(ordered - median)))
    return Distribution(
        mean=float(ordered.mean()),
        deviation=float(ordered.std(ddof=1)) if len(ordered) > 1 else None,
        least=float(ordered[0]),
        greatest=float(ordered[-1]),
        p50=median,
        p90=percentile(ordered, 0.9),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        p999=percentile(ordered, 0.999),
        p90_bound=percentile_bound(ordered, 0.9),
        p99_bound=percentile_bound(ordered, 0.99),
        outliers=int((np.abs(ordered - median) > OUTLIER_DEVIATIONS * spread).sum()) if spread else 0,
    )


def percentile(ordered: Samples, share: float) -> float | None:
    """The smallest sample that ``share`` of them do not exceed; ``None`` where :func:`bound_rank` is."""
    if bound_rank(len(ordered), share) is None:
        return None
    return float(ordered[math.ceil(share * len(ordered)) - 1])


def percentile_bound(ordered: Samples, share: float) -> float | None:
    """A value that the percentile of the distribution itself does not exceed, at 99 % confidence."""
    rank = bound_rank(len(ordered), share)
    return None if rank is None else float(ordered[rank - 1])


def bound_rank(count: int, share: float) -> int | None:
    """Which of ``count`` samples in order, from 1, bounds a percentile from above at 99 % confidence.

    So many samples exceed the percentile as a binomial distribution says. As in MLPerf's load generator (early
    stopping), at least one sample has to lie above the bound.

    Returns:
        ``None`` where there are too few samples: 64 are needed for the 90th percentile, 662 for the 99th.
    """
    counts = np.arange(1, count)
    # The chance that at least so many exceed the percentile falls with their number.
    exceeding = int((special.bdtrc(counts - 1, count, 1 - share) >= CONFIDENCE).sum())
    return count - exceeding + 1 if exceeding >= 2 else None


def half_widths(milliseconds: Samples, shares: Sequence[float], seed: int = 0) -> list[float]:
    """Half the widths of percentiles' 95 % intervals, by resampling blocks of passes.

    Args:
        milliseconds: Of each pass, in order; at least two blocks.
        shares: The percentiles, such as 0.5 and 0.99.
        seed: Of the resampling.

    Returns:
        Of each percentile, as a share of it.
    """
    count = len(milliseconds)
    ranks = [math.ceil(share * count) - 1 for share in shares]
    blocks = np.lib.stride_tricks.sliding_window_view(milliseconds, BLOCK)
    draws = np.random.default_rng(seed).integers(0, len(blocks), (RESAMPLES, -(-count // BLOCK)))
    # One resample at a time: all of those of a minute's passes would be hundreds of megabytes.
    resampled = [np.partition(blocks[draw].reshape(-1)[:count], ranks)[ranks] for draw in draws]
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    widths: list[float] = ((high - low) / 2 / np.partition(milliseconds, ranks)[ranks]).tolist()
    return widths


def drift(milliseconds: Samples) -> float | None:
    """How much the median of the last quarter exceeds that of the first, as a share; ``None`` of fewer than 40."""
    if len(milliseconds) < 40:
        return None
    quarter = len(milliseconds) // 4
    return float(np.median(milliseconds[-quarter:]) / np.median(milliseconds[:quarter]) - 1)


def spread(milliseconds: Samples) -> float | None:
    """Ratio of the 90th to the 10th percentile; ``None`` of fewer than ten passes."""
    if len(milliseconds) < 10:
        return None
    low, high = np.quantile(milliseconds, [0.1, 0.9], method="inverted_cdf")
    return float(high / low) if low > 0 else math.inf


def throughput(batch: int, milliseconds: Samples) -> float:
    """Images per second: ``batch × passes`` divided by the sum of all passes (16 000 / sum of 1000 of 16)."""
    return float(batch * len(milliseconds) / (milliseconds.sum() / 1e3))
