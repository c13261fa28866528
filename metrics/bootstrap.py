"""How far a value could lie from another set of images of the same kind: stratified bootstrap over images.

Normal and anomalous images are resampled apart, so that every resample has as many of each as the original; the
defect regions follow their images. A resample is a count for each image: nothing is ranked again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics import engine
from metrics.defects import collect_defects
from metrics.errors import MetricError
from metrics.images import check_scores
from metrics.inputs import MapReader, check_lengths, share_out, worker_count
from metrics.ranking import check_limits

Floats = NDArray[np.float64]
CHUNK = 1 << 21  # numbers held at a time per array


@dataclass(frozen=True)
class Interval:
    """A value and its bootstrap interval: quantiles of the resampled values, expanded for the number of images.

    Plain percentiles are too narrow by about the factor sqrt(1 - 1/n) and by that of the normal to the t quantile.
    The quantiles are therefore those of a level that makes up for both, n being the number of images of the
    scarcer kind (Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 2015).

    Attributes:
        value: on the images as they are.
        low: lower end.
        high: upper end.
        level: how often such an interval is meant to contain the value of the whole population.
        images: how many images of the scarcest kind were resampled.
        resampled: the values of the resamples.
    """

    value: float
    low: float
    high: float
    level: float
    images: int = field(repr=False)
    resampled: Floats = field(repr=False, compare=False)


Seed = int | Sequence[int]
"""Of a resampling; numbers in a row together are one seed."""


@dataclass(frozen=True)
class PixelCounts:
    """All that a bootstrap needs to know of the maps of one evaluation; a few megabytes.

    Attributes:
        anomalous: (n,) whether the image has a mask.
        normals: (n,) normal pixels.
        at_least: (n, t) normal pixels with a score of at least each threshold, thresholds descending.
        above: (n, t) normal pixels with a higher score.
        region_image: (r,) image of each region.
        region_area: (r,) its pixels.
        found_at_least: (r, t) pixels of each region with a score of at least each threshold.
        found_above: (r, t) pixels of each region with a higher score.
    """

    anomalous: NDArray[np.bool_]
    normals: NDArray[np.int64]
    at_least: NDArray[np.int64]
    above: NDArray[np.int64]
    region_image: NDArray[np.int64]
    region_area: NDArray[np.int64]
    found_at_least: NDArray[np.int64]
    found_above: NDArray[np.int64]


def count_pixels(
    maps: Sequence[NDArray[Any]] | NDArray[Any],
    masks: Sequence[NDArray[Any] | None] | NDArray[Any],
    *,
    points: int = 2048,
    names: Sequence[str] | None = None,
    threads: int | None = None,
) -> PixelCounts:
    """Count the pixels of each image and region at about ``points`` thresholds.

    The thresholds are scores of defect pixels, evenly spaced in overlap and in true-positive rate, so that an area
    computed from them is off by less than 1 / points, in practice by some 1e-6; with fewer distinct scores of
    defect pixels than ``points`` it is exact.

    Args:
        maps: as for ``evaluate_pixels``.
        masks: as for ``evaluate_pixels``.
        points: at least 2.
        names: a name for each image, used in messages.
        threads: images processed at a time; None uses every core, at most 8.

    Raises:
        MetricError: as ``evaluate_pixels``; also without any defect pixel or any normal pixel.
    """
    from metrics import kernels

    reader = MapReader(maps, names)
    check_lengths(reader, masks, "masks")
    if points < 2:
        raise MetricError(f"points must be at least 2, is {points}")
    workers = worker_count(threads)
    defects = collect_defects(reader, masks, workers)
    if defects.scores.size == 0:
        raise MetricError("no mask marks a defect pixel: there is nothing to resample")
    thresholds = _spread(defects.scores, 1 / defects.area[defects.region], points)
    at_least = np.zeros((len(masks), thresholds.size), np.int64)
    above = np.zeros_like(at_least)
    sizes = np.zeros(len(masks), np.int64)

    def count(index: int) -> None:
        scores = np.sort(reader.read(index, defects.shapes[index]).reshape(-1))
        if not np.isfinite(scores[[0, -1]]).all():
            reader.refuse(index)
        sizes[index] = scores.size
        kernels.merge(scores, thresholds, at_least[index], above[index])  # below and up to: turned round at the end

    share_out(len(masks), [count] * workers)
    order = np.argsort(defects.region, kind="stable")
    found = np.zeros((2, defects.area.size, thresholds.size), np.int64)
    for region, scores in enumerate(np.split(defects.scores[order], np.cumsum(defects.area)[:-1])):
        found[0, region] = np.searchsorted(scores, thresholds, side="left")
        found[1, region] = np.searchsorted(scores, thresholds, side="right")
        at_least[defects.image[region]] -= found[0, region]
        above[defects.image[region]] -= found[1, region]
    normals = sizes - np.bincount(defects.image, weights=defects.area, minlength=len(masks)).astype(np.int64)
    if not normals.any():
        raise MetricError("every pixel is a defect pixel: there is no false-positive rate")
    return PixelCounts(
        anomalous=np.array([shape is not None for shape in defects.shapes]),
        normals=normals,
        at_least=(normals[:, None] - at_least)[:, ::-1],
        above=(normals[:, None] - above)[:, ::-1],
        region_image=defects.image,
        region_area=defects.area,
        found_at_least=(defects.area[:, None] - found[0])[:, ::-1],
        found_above=(defects.area[:, None] - found[1])[:, ::-1],
    )


def _spread(scores: NDArray[Any], weights: Floats, points: int) -> NDArray[Any]:
    """Return at most ``points`` distinct scores: half evenly spaced by number, half by weight; all if few."""
    distinct, _ = engine.distinct(scores)
    if distinct.size <= points:
        return distinct
    cumulated = np.cumsum(weights)
    shares = np.linspace(0, 1, points // 2)
    by_number = np.round(shares * (scores.size - 1)).astype(np.int64)
    by_weight = np.searchsorted(cumulated, shares * cumulated[-1]).clip(0, scores.size - 1)
    chosen, _ = engine.distinct(np.sort(scores[np.concatenate((by_number, by_weight))]))
    return chosen


def bootstrap_pixels(
    counts: PixelCounts,
    fpr_limits: tuple[float, ...] = (0.05, 0.3, 1.0),
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: Seed = 0,
) -> dict[str, Interval]:
    """Return intervals for ``au_pro@L`` and ``pixel_au_roc@L``.

    Args:
        counts: from ``count_pixels``.
        fpr_limits: each in (0, 1].
        resamples: how many.
        level: of the interval, in (0, 1).
        seed: of the resampling.
    """
    limits = check_limits(fpr_limits)
    check_kinds(counts.anomalous)
    return resample(lambda weights: pixel_values(counts, weights, limits), counts.anomalous, resamples, level, seed)


def bootstrap_images(
    scores: Sequence[float] | NDArray[Any],
    labels: Sequence[Any] | NDArray[Any],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: Seed = 0,
    names: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Return intervals for ``image_au_roc``, ``image_average_precision`` and ``image_f1_max``.

    Args:
        scores: as for ``evaluate_images``.
        labels: as for ``evaluate_images``; both kinds of images must be there.
        resamples: how many.
        level: of the interval, in (0, 1).
        seed: of the resampling.
        names: a name for each image, used in messages.

    Raises:
        MetricError: a score is not finite, or one kind of images is missing.
    """
    values, anomalous = check_scores(scores, labels, names)
    ranked = RankedScores(values, anomalous)
    check_kinds(anomalous)
    return resample(ranked.values, anomalous, resamples, level, seed)


def mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Return the interval of the mean over evaluations of different images, such as the scenarios of a collection.

    Args:
        intervals: at least one, all with the same number of resamples and the same level, but each with a seed of
            its own, as the images of one evaluation do not depend on those of another.
    """
    resampled = np.mean([interval.resampled for interval in intervals], axis=0)
    value = float(np.mean([interval.value for interval in intervals]))
    return _interval(value, resampled, intervals[0].level, min(interval.images for interval in intervals))


def resample(
    evaluate: Callable[[Floats], Mapping[str, Floats]], kinds: NDArray[Any], resamples: int, level: float, seed: Seed
) -> dict[str, Interval]:
    """Evaluate the original weights (all 1) and the resampled ones, and return an interval for each value.

    Args:
        evaluate: from weights of the images (resamples, n) to values (resamples,) by name.
        kinds: (n,) the kind of each image; every kind is resampled apart.
        resamples: how many.
        level: of the interval, in (0, 1).
        seed: of the resampling.

    Raises:
        MetricError: fewer than two images of a kind, or numbers out of range.
    """
    if resamples < 2 or not 0 < level < 1:
        raise MetricError(f"resamples must be at least 2 and level in (0, 1), are {resamples} and {level}")
    strata = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    scarcest = min(stratum.size for stratum in strata)
    if scarcest < 2:
        raise MetricError("a bootstrap needs at least two images of each kind")
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, kinds.size))
    for stratum in strata:
        shares = np.full(stratum.size, 1 / stratum.size)
        weights[:, stratum] = generator.multinomial(stratum.size, shares, size=resamples)
    original = evaluate(np.ones((1, kinds.size)))
    resampled = evaluate(weights)
    return {name: _interval(float(value[0]), resampled[name], level, scarcest) for name, value in original.items()}


def check_kinds(kinds: NDArray[Any]) -> None:
    """Refuse images of which there are no two normal ones (0), or no two of a kind of anomalies (anything else).

    Raises:
        MetricError: there are too few.
    """
    present, sizes = np.unique(kinds, return_counts=True)
    if present.size < 2 or present[0] != 0 or sizes.min() < 2:
        raise MetricError("a bootstrap needs at least two normal and two anomalous images of each kind")


def _interval(value: float, resampled: Floats, level: float, images: int) -> Interval:
    tail = _expanded((1 - level) / 2, images)
    low, high = np.nanquantile(resampled, (tail, 1 - tail))
    return Interval(value, float(low), float(high), level, images, resampled)


def _expanded(tail: float, count: int) -> float:
    """Return the share to cut off at either end so that about ``tail`` of the intervals miss the truth there."""
    from scipy import special

    return float(special.ndtr(np.sqrt(count / (count - 1)) * special.stdtrit(count - 1, tail)))


def pixel_values(counts: PixelCounts, weights: Floats, limits: tuple[float, ...]) -> dict[str, Floats]:
    """Return the values of each row of ``weights`` (resamples, n)."""
    area = counts.region_area.astype(np.float64)
    image_pixels = np.bincount(counts.region_image, weights=area, minlength=counts.normals.size)
    false_positives = _interleave(counts.above, counts.at_least)
    found = _interleave(counts.found_above, counts.found_at_least)
    overlap = found / area[:, None]
    values: dict[str, list[Floats]] = {}
    step = max(1, CHUNK // found.shape[1])
    for start in range(0, len(weights), step):
        part = weights[start : start + step]
        region_weights = part[:, counts.region_image]
        fpr = part @ false_positives / (part @ counts.normals)[:, None]
        # A resample may miss every image with a region: 0 / 0, left out of the quantiles.
        with np.errstate(invalid="ignore"):
            curves = {
                "au_pro": region_weights @ overlap / region_weights.sum(axis=1)[:, None],
                "pixel_au_roc": region_weights @ found / (part @ image_pixels)[:, None],
            }
        for limit in limits:
            for name, curve in curves.items():
                values.setdefault(f"{name}@{limit}", []).append(_area_up_to(fpr, curve, limit))
    return {name: np.concatenate(parts) for name, parts in values.items()}


def _interleave(above: NDArray[np.int64], at_least: NDArray[np.int64]) -> Floats:
    """Return (rows, 2 t): the counts just before and at each threshold."""
    both = np.zeros((above.shape[0], 2 * above.shape[1]))
    both[:, 0::2] = above
    both[:, 1::2] = at_least
    return both


def _area_up_to(x: Floats, y: Floats, limit: float) -> Floats:
    """Return for each row the area under the polyline from (0, 0) to (1, 1) up to x = limit, by the limit."""
    edge = np.ones((x.shape[0], 1))
    x = np.concatenate((0 * edge, x, edge), axis=1)
    y = np.concatenate((0 * edge, y, edge), axis=1)
    left, right = x[:, :-1], x[:, 1:]
    width = np.clip(right, None, limit) - np.clip(left, None, limit)
    full = right - left
    share = np.divide(width, full, out=np.zeros_like(full), where=full > 0)
    mean = y[:, :-1] + (y[:, 1:] - y[:, :-1]) * share / 2
    area: Floats = np.sum(width * mean, axis=1) / limit
    return area


class RankedScores:
    """Image scores, ranked once; evaluates any weights of the images."""

    def __init__(self, scores: Floats, anomalous: NDArray[np.bool_]) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        self._anomalous = anomalous[self._order]

    def values(self, weights: Floats) -> dict[str, Floats]:
        """Return the image metrics of each row of ``weights`` (resamples, n)."""
        step = max(1, CHUNK // weights.shape[1])
        parts = [self._evaluate(weights[start : start + step]) for start in range(0, len(weights), step)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _evaluate(self, weights: Floats) -> dict[str, Floats]:
        weights = weights[:, self._order]
        true = np.cumsum(weights * self._anomalous, axis=1)[:, self._ends]
        false = np.cumsum(weights * ~self._anomalous, axis=1)[:, self._ends]
        positives, negatives = true[:, -1:], false[:, -1:]
        steps = np.diff(true, axis=1, prepend=0)
        predicted = true + false
        # A score that the resample does not contain adds no step: its precision is irrelevant.
        precision = np.divide(true, predicted, out=np.zeros_like(true), where=predicted > 0)
        widths = np.diff(false, axis=1, prepend=0)
        return {
            "image_au_roc": np.sum(widths * (true - steps / 2), axis=1) / (positives * negatives)[:, 0],
            "image_average_precision": np.sum(precision * steps, axis=1) / positives[:, 0],
            "image_f1_max": np.max(2 * true / (predicted + positives), axis=1),
        }
