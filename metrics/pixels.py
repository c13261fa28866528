"""AU-PRO, pixel AU-ROC, average precision, F1-max and the defect-size quartiles, in one evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics import engine
from metrics.inputs import FloatArray, MapReader, check_lengths, read_mask, share_out, worker_count
from metrics.ranking import Ranking, check_limits

QUARTILES = (0.25, 0.5, 0.75, 1.0)
NAN = float("nan")


@dataclass(frozen=True)
class Regions:
    """The defect regions, in order of image and, within an image, of their first pixel.

    Attributes:
        image: (r,) index of the image.
        area: (r,) number of pixels.
        au_pro: for each FPR limit (r,) the region's own area under its overlap curve; AU-PRO is their mean.
        overlap: for each FPR limit (r,) the share of the region found at the lowest threshold within the limit.
    """

    image: NDArray[np.int64]
    area: NDArray[np.int64]
    au_pro: Mapping[float, NDArray[np.float64]]
    overlap: Mapping[float, NDArray[np.float64]]


@dataclass(frozen=True)
class Quartiles:
    """AU-PRO over the regions up to each quartile of the region areas: Q1 the smallest, Q4 all.

    Attributes:
        areas: the 25, 50, 75 and 100 % quantiles of the region areas (linear interpolation), in pixels.
        au_pro: AU-PRO over the regions no larger than that.
        robustness: mean of the four × (1 - |Q4 - Q1| / their maximum); 1 is perfect at every size.
    """

    areas: tuple[float, ...]
    au_pro: tuple[float, ...]
    robustness: float


@dataclass(frozen=True)
class PixelMetrics:
    """How well the maps of one scenario localise its defects; every value in [0, 1], or NaN with a reason.

    Attributes:
        au_pro: area under the per-region overlap curve up to each FPR limit, divided by the limit.
        au_roc: area under the pixel ROC curve up to each FPR limit, divided by the limit.
        average_precision: over pixels.
        f1_max: highest pixel F1 over all thresholds.
        quartiles: for each FPR limit.
        regions: the same per region.
        normal_pixels: how many pixels lie in no defect region; the unit of the FPR axis.
        defect_pixels: how many lie in one.
        empty_masks: images whose mask was given but marks no pixel; all their pixels count as normal.
        undefined: the reason for each value that is NaN, by the name it has in ``named()``.
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

    def named(self) -> dict[str, float]:
        """Return all values under their names in records and tables (``au_pro@0.3``, ``au_pro_q1@0.3`` …)."""
        values = {f"au_pro@{limit}": value for limit, value in self.au_pro.items()}
        values |= {f"pixel_au_roc@{limit}": value for limit, value in self.au_roc.items()}
        values |= {"pixel_average_precision": self.average_precision, "pixel_f1_max": self.f1_max}
        for limit, quartiles in self.quartiles.items():
            values |= {f"au_pro_q{q}@{limit}": value for q, value in enumerate(quartiles.au_pro, start=1)}
            values[f"size_robustness@{limit}"] = quartiles.robustness
        return values


@dataclass(frozen=True)
class DefectPixels:
    """What the first pass collects from the anomalous images.

    Attributes:
        scores: (p,) ascending.
        region: (p,) the region that each belongs to.
        image: (r,) the image of each region.
        area: (r,) the area of each region.
        shapes: for each image the shape of its mask, None where it has none.
        empty_masks: images with a mask that marks nothing.
    """

    scores: FloatArray
    region: NDArray[np.int64]
    image: NDArray[np.int64]
    area: NDArray[np.int64]
    shapes: list[tuple[int, ...] | None]
    empty_masks: tuple[int, ...]


@dataclass(frozen=True)
class _ImageRegions:
    scores: FloatArray  # of each defect pixel
    region: NDArray[np.int32]  # of each defect pixel
    area: NDArray[np.int64]  # of each region


def evaluate_pixels(
    maps: Sequence[NDArray[Any]] | NDArray[Any],
    masks: Sequence[NDArray[Any] | None] | NDArray[Any],
    fpr_limits: tuple[float, ...] = (0.05, 0.3, 1.0),
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
) -> PixelMetrics:
    """Evaluate anomaly maps against defect masks, exactly: every distinct score is a threshold.

    Args:
        maps: n float16, float32 or float64 arrays (h_i, w_i), higher = more anomalous. Any sequence; it is read
            twice, image by image, from several threads at once unless ``threads`` is 1.
        masks: n arrays of the shape of their map, nonzero = defect, or None for a normal image. Any sequence.
        fpr_limits: upper ends of the FPR axis, each in (0, 1].
        names: a name for each image, used in messages.
        threads: images processed at a time; None uses every core this process may use.

    Raises:
        MetricError: lengths, shapes, scores or limits that allow no evaluation; names the image.

    Source:
        AU-PRO and regions: Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021, section 5.2, with
        8-connected regions and every distinct score as a threshold.
    """
    limits = check_limits(fpr_limits)
    reader = MapReader(maps, names)
    check_lengths(reader, masks, "masks")
    workers = worker_count(threads)
    defects = collect_defects(reader, masks, workers)
    thresholds, threshold_of = engine.distinct(defects.scores)
    ranking = engine.rank(reader, defects.shapes, thresholds, np.bincount(threshold_of), defects.scores, workers)
    return _summarise(ranking, threshold_of, defects, limits)


def collect_defects(
    reader: MapReader, masks: Sequence[NDArray[Any] | None] | NDArray[Any], workers: int
) -> DefectPixels:
    """Label the regions of every mask and gather the scores under them: the first pass."""
    from metrics import kernels

    shapes: list[tuple[int, ...] | None] = [None] * len(masks)
    found: dict[int, _ImageRegions] = {}

    def gather(index: int) -> None:
        if masks[index] is None:
            return
        mask = read_mask(masks[index], reader.label(index))
        shapes[index] = mask.shape
        pixels = np.flatnonzero(mask)
        if pixels.size:
            region, regions = kernels.label_regions(pixels, mask.shape[1])
            found[index] = _ImageRegions(
                reader.read(index, mask.shape).reshape(-1)[pixels],
                region,
                np.bincount(region, minlength=regions),
            )

    share_out(len(masks), [gather] * workers)
    images = sorted(found)
    parts = [found[index] for index in images]
    counts = [part.area.size for part in parts]
    first = np.cumsum([0, *counts])
    scores, region = engine.sort_with(
        np.concatenate([part.scores for part in parts] or [np.empty(0, np.float32)]),
        np.concatenate(
            [part.region + offset for part, offset in zip(parts, first[:-1], strict=True)] or [np.empty(0, np.int64)]
        ),
    )
    return DefectPixels(
        scores,
        region,
        np.repeat(np.array(images, np.int64), counts),
        np.concatenate([part.area for part in parts] or [np.empty(0, np.int64)]),
        shapes,
        tuple(index for index, shape in enumerate(shapes) if shape is not None and index not in found),
    )


def _summarise(
    ranking: Ranking, threshold_of: NDArray[np.intp], defects: DefectPixels, limits: tuple[float, ...]
) -> PixelMetrics:
    reason = undefined_reason(ranking, defects)
    au_pro, overlap = {}, {}
    for limit in limits:
        first, units = ranking.unit_areas(limit)
        pixels = slice(int(np.searchsorted(threshold_of, first)), None)
        au_pro[limit] = _per_region(defects, pixels, units[threshold_of[pixels] - first])
        pixels = slice(int(np.searchsorted(threshold_of, ranking.first_within(limit))), None)
        overlap[limit] = _per_region(defects, pixels)
    metrics = PixelMetrics(
        au_pro={limit: NAN if reason else float(np.mean(au_pro[limit])) for limit in limits},
        au_roc={limit: NAN if reason else ranking.au_roc(limit) for limit in limits},
        average_precision=NAN if reason else ranking.average_precision(),
        f1_max=NAN if reason else ranking.f1_max(),
        quartiles={limit: _quartiles(defects.area, au_pro[limit], reason) for limit in limits},
        regions=Regions(defects.image, defects.area, au_pro, overlap),
        normal_pixels=ranking.normals,
        defect_pixels=defects.scores.size,
        empty_masks=defects.empty_masks,
    )
    if not reason:
        return metrics
    return replace(metrics, undefined=dict.fromkeys(metrics.named(), reason))


def undefined_reason(ranking: Ranking, defects: DefectPixels) -> str:
    """Return why no pixel metric is defined, or an empty string."""
    if not defects.shapes:
        return "there are no images"
    if all(shape is None for shape in defects.shapes):
        return "no image is anomalous"
    if defects.scores.size == 0:
        return "no mask marks a defect pixel"
    if ranking.normals == 0:
        return "every pixel is a defect pixel"
    return ""


def _per_region(defects: DefectPixels, pixels: slice, values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Return for each region the sum over the given pixels of a value (or of 1), divided by its area."""
    return np.bincount(defects.region[pixels], weights=values, minlength=defects.area.size) / defects.area


def _quartiles(area: NDArray[np.int64], au_pro: NDArray[np.float64], reason: str) -> Quartiles:
    if reason:
        return Quartiles((NAN,) * 4, (NAN,) * 4, NAN)
    bounds = np.quantile(area, QUARTILES)
    means = tuple(float(np.mean(au_pro[area <= bound])) for bound in bounds)
    return Quartiles(tuple(map(float, bounds)), means, robustness(means))


def robustness(au_pro: Sequence[float]) -> float:
    """Return the robustness to defect size of AU-PRO over Q1 … Q4: mean × (1 - |Q4 - Q1| / maximum).

    Zero when AU-PRO is zero at every size.
    """
    highest = max(au_pro)
    if highest == 0:
        return 0.0
    return float(np.mean(au_pro) * (1 - abs(au_pro[-1] - au_pro[0]) / highest))
