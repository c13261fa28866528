"""AU-PRO, pixel AU-ROC, average precision, F1-max and the defect-size quartiles, in one evaluation."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from metrics.curves import Curves, thin_precision_recall, thin_rising
from metrics.defects import RankedDefects, rank_defects
from metrics.errors import MetricError
from metrics.inputs import MapReader, check_lengths, worker_count
from metrics.maps import Subset
from metrics.ranking import check_limits
from metrics.sizes import QUARTILES, Quartiles, Regions, robustness

NAN = float("nan")
NO_REGION_LEFT = "every image with a region of this size also has a larger one, and was dropped"
Excluded = Literal["ignore", "negative", "drop_images"]


@dataclass(frozen=True)
class PixelMetrics:
    """How well the maps of one scenario localise its defects; every value in [0, 1], or NaN with a reason.

    Attributes:
        au_pro: area under the per-region overlap curve up to each FPR limit, divided by the limit.
        au_roc: area under the pixel ROC curve up to each FPR limit, divided by the limit.
        average_precision: over pixels.
        f1_max: highest pixel F1 over all thresholds.
        quartiles: for each FPR limit at which they were asked for.
        regions: the same per region.
        normal_pixels: how many pixels lie in no defect region; the unit of the FPR axis.
        defect_pixels: how many lie in one.
        empty_masks: images whose mask was given but marks no pixel; all their pixels count as normal.
        undefined: the reason for each value that is NaN, by the name it has in ``named()``.
        curves: for plots, if asked for.
    """

    au_pro: Mapping[float, float]
    au_roc: Mapping[float, float]
    average_precision: float
    f1_max: float
    quartiles: Mapping[float, Quartiles]
    regions: Regions
    normal_pixels: int
    defect_pixels: int
    empty_masks: tuple[int, ...] = ()
    undefined: Mapping[str, str] = field(default_factory=dict)
    curves: Curves | None = None

    def named(self) -> dict[str, float]:
        """Return all values under their names in records and tables (``au_pro@0.3``, ``au_pro_q1@0.3`` …)."""
        values = {f"au_pro@{limit}": value for limit, value in self.au_pro.items()}
        values |= {f"pixel_au_roc@{limit}": value for limit, value in self.au_roc.items()}
        values |= {"pixel_average_precision": self.average_precision, "pixel_f1_max": self.f1_max}
        for limit, quartiles in self.quartiles.items():
            values |= {f"au_pro_q{q}@{limit}": value for q, value in enumerate(quartiles.au_pro, start=1)}
            values[f"size_robustness@{limit}"] = quartiles.robustness
        return values


def evaluate_pixels(
    maps: Sequence[NDArray[Any]] | NDArray[Any],
    masks: Sequence[NDArray[Any] | None] | NDArray[Any],
    fpr_limits: tuple[float, ...] = (0.05, 0.3, 1.0),
    *,
    quartile_limits: tuple[float, ...] | None = None,
    names: Sequence[str] | None = None,
    threads: int | None = None,
    excluded: Excluded = "ignore",
    threshold: float | None = None,
    curve_points: int = 0,
) -> PixelMetrics:
    """Evaluate anomaly maps against defect masks, exactly: every distinct score is a threshold.

    Args:
        maps: n float16, float32 or float64 arrays (h_i, w_i), higher = more anomalous. Any sequence; it is read
            twice, image by image, from several threads at once unless ``threads`` is 1.
        masks: n arrays of the shape of their map, nonzero = defect, or None for a normal image. Any sequence.
        fpr_limits: upper ends of the FPR axis, each in (0, 1].
        quartile_limits: those of them at which defect-size quartiles are given; None for all.
        names: a name for each image, used in messages.
        threads: images processed at a time; None uses every core, at most 8.
        excluded: what the pixels of regions too large for a quartile are: "ignore", neither found nor false
            alarms; "negative", false alarms like normal pixels; "drop_images", gone with their whole image.
        threshold: if given, ``regions`` tells the share of each region whose score exceeds it.
        curve_points: if not 0, ``curves`` holds the curves, thinned to about so many points each.

    Raises:
        MetricError: lengths, shapes, scores or limits that allow no evaluation; names the image.

    Source:
        AU-PRO and regions: Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021, section 5.2, with
        8-connected regions and every distinct score as a threshold.
    """
    limits = check_limits(fpr_limits)
    quartile_limits = limits if quartile_limits is None else quartile_limits
    if not set(quartile_limits) <= set(limits):
        raise MetricError(f"quartile_limits {quartile_limits} are not among fpr_limits {limits}")
    if excluded not in get_args(Excluded):
        raise MetricError(f"excluded is one of {', '.join(get_args(Excluded))}, not {excluded!r}")
    if curve_points != 0 and curve_points < 3:
        raise MetricError(f"a curve has at least 3 points, or 0 for none, not {curve_points}")
    reader = MapReader(maps, names)
    check_lengths(reader, masks, "masks")
    workers = worker_count(threads)
    ranked = rank_defects(reader, masks, workers)
    if ranked.undefined_reason:
        return _undefined(limits, quartile_limits, ranked)

    def rank_images(positions: list[int]) -> RankedDefects:
        return rank_defects(reader.subset(positions), Subset(masks, positions), workers)

    area = ranked.pixels.area
    au_pro = {limit: ranked.region_au_pro(limit) for limit in limits}
    overlap = {limit: ranked.region_overlap(limit) for limit in limits}
    above = None if threshold is None else ranked.region_overlap_above(threshold)
    metrics = PixelMetrics(
        au_pro={limit: float(np.mean(values)) for limit, values in au_pro.items()},
        # The same areas, every pixel weighing the same instead of every region.
        au_roc={limit: float(np.average(values, weights=area)) for limit, values in au_pro.items()},
        average_precision=ranked.ranking.average_precision(),
        f1_max=ranked.ranking.f1_max(),
        quartiles=_quartiles(ranked, {limit: au_pro[limit] for limit in quartile_limits}, excluded, rank_images),
        regions=Regions(ranked.pixels.image, area, au_pro, overlap, overlap_above_threshold=above),
        normal_pixels=ranked.ranking.normals,
        defect_pixels=ranked.pixels.scores.size,
        empty_masks=ranked.pixels.empty_masks,
        curves=_curves(ranked, limits, curve_points) if curve_points else None,
    )
    missing = [name for name, value in metrics.named().items() if math.isnan(value)]
    return replace(metrics, undefined=dict.fromkeys(missing, NO_REGION_LEFT)) if missing else metrics


def _quartiles(
    ranked: RankedDefects,
    au_pro: dict[float, NDArray[np.float64]],
    excluded: Excluded,
    rank_images: Callable[[list[int]], RankedDefects],
) -> dict[float, Quartiles]:
    """Evaluate the regions up to each quartile of the areas, reading the others as ``excluded`` says."""
    area = ranked.pixels.area
    bounds = tuple(float(bound) for bound in np.quantile(area, QUARTILES))
    means: dict[float, list[float]] = {limit: [] for limit in au_pro}
    for bound in bounds:
        part, kept = ranked, area <= bound
        if excluded == "negative" and not kept.all():
            part = ranked.punishing(~kept)
        elif excluded == "drop_images" and not kept.all():
            dropped = set(ranked.pixels.image[~kept].tolist())
            part = rank_images([index for index in range(len(ranked.pixels.shapes)) if index not in dropped])
            kept = np.ones(part.pixels.area.size, np.bool_)
        for limit, regions in au_pro.items():
            usable = kept.any() and not part.undefined_reason
            values = regions if part is ranked else part.region_au_pro(limit)
            means[limit].append(float(np.mean(values[kept])) if usable else NAN)
    return {limit: Quartiles(bounds, tuple(values), robustness(values)) for limit, values in means.items()}


def _curves(ranked: RankedDefects, limits: tuple[float, ...], points: int) -> Curves:
    ranking, area = ranked.ranking, ranked.pixels.area
    overlap = np.bincount(ranked.threshold_of, weights=1 / (area * area.size)[ranked.pixels.region])
    return Curves(
        pro=thin_rising(ranking, overlap, limits, points),
        roc=thin_rising(ranking, ranking.positives / ranking.positives.sum(), limits, points),
        precision_recall=thin_precision_recall(ranking, points),
    )


def undefined_pixels(
    reason: str, fpr_limits: tuple[float, ...] = (0.05, 0.3, 1.0), quartile_limits: tuple[float, ...] | None = None
) -> PixelMetrics:
    """The metrics of maps that there is no ground truth for: none has a value.

    Args:
        reason: Why.
        fpr_limits: as for ``evaluate_pixels``.
        quartile_limits: as for ``evaluate_pixels``.
    """
    nothing = dict.fromkeys(fpr_limits, NAN)
    none = np.zeros(0, np.intp)
    empty = dict.fromkeys(fpr_limits, np.zeros(0))
    undefined = Quartiles((NAN,) * 4, (NAN,) * 4, NAN)
    metrics = PixelMetrics(
        au_pro=nothing,
        au_roc=nothing,
        average_precision=NAN,
        f1_max=NAN,
        quartiles=dict.fromkeys(fpr_limits if quartile_limits is None else quartile_limits, undefined),
        regions=Regions(none, none, empty, empty),
        normal_pixels=0,
        defect_pixels=0,
    )
    return replace(metrics, undefined=dict.fromkeys(metrics.named(), reason))


def _undefined(limits: tuple[float, ...], quartile_limits: tuple[float, ...], ranked: RankedDefects) -> PixelMetrics:
    metrics = undefined_pixels(ranked.undefined_reason, limits, quartile_limits)
    empty = dict.fromkeys(limits, np.full(ranked.pixels.area.size, NAN))
    return replace(
        metrics,
        regions=Regions(ranked.pixels.image, ranked.pixels.area, empty, empty),
        normal_pixels=ranked.ranking.normals,
        defect_pixels=ranked.pixels.scores.size,
        empty_masks=ranked.pixels.empty_masks,
    )
