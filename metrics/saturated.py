"""AU-sPRO: the localisation metric of MVTec LOCO, where finding part of a defect can be enough."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics import engine
from metrics.buckets import sample_of
from metrics.errors import MetricError
from metrics.inputs import FloatArray, MapReader, check_lengths, read_mask, share_out, worker_count
from metrics.ranking import Ranking, check_limits
from metrics.sizes import Regions

NAN = float("nan")
MARGIN = 1.25
"""How many times the allowed false positives a first guess of the lowest score that matters lets through."""


@dataclass(frozen=True)
class Defect:
    """One annotated defect of an image: its pixels need not be connected, and may overlap those of others.

    Attributes:
        mask: (height, width), nonzero where the defect may be.
        saturation: how many of these pixels have to be found for the defect to count as found; fewer than 1 are
            taken as 1, more than the area as the area.
    """

    mask: NDArray[Any]
    saturation: int


def saturation_pixels(area: int, threshold: float, *, relative: bool) -> int:
    """Return a saturation in pixels from its definition in a ``defects_config`` of MVTec LOCO.

    A relative threshold is a share of the defect's area. Both kinds are truncated to whole pixels, for tiny defects
    to none: the official evaluation then divides by zero, ``evaluate_saturated`` takes one pixel and notes it.
    """
    return int(threshold * area if relative else threshold)


@dataclass(frozen=True)
class SaturatedMetrics:
    """How well the maps localise defects of which only a part must be found.

    Attributes:
        au_spro: area under the saturated per-region overlap curve up to each FPR limit, divided by the limit.
        regions: the same per defect, with its saturation after the corrections in ``notes``.
        normal_pixels: how many pixels lie in no defect.
        notes: saturations that had to be corrected and defects that were left out, by image.
        undefined: the reason for each value that is NaN, by its name (``au_spro@0.05``).
    """

    au_spro: Mapping[float, float]
    regions: Regions
    normal_pixels: int
    notes: tuple[str, ...] = ()
    undefined: Mapping[str, str] = field(default_factory=dict)

    def named(self) -> dict[str, float]:
        """Return all values under their names in records and tables (``au_spro@0.05`` …)."""
        return {f"au_spro@{limit}": value for limit, value in self.au_spro.items()}


@dataclass(frozen=True)
class _ImageDefects:
    shape: tuple[int, ...]
    scores: FloatArray  # of every pixel in any defect, once
    sample: FloatArray  # of some pixels
    counted: list[FloatArray]  # of each defect, its `saturation` highest scores
    areas: list[int]
    notes: list[str]


def evaluate_saturated(
    maps: Sequence[NDArray[Any]] | NDArray[Any],
    defects: Sequence[Sequence[Defect]],
    fpr_limits: tuple[float, ...] = (0.05,),
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
) -> SaturatedMetrics:
    """Evaluate anomaly maps against defects with saturation thresholds, exactly.

    A defect's overlap is min(found pixels / saturation, 1), so that only its ``saturation`` highest-scored pixels
    matter. The FPR axis counts the pixels that lie in no defect, of all images.

    Args:
        maps: n float arrays (h_i, w_i), higher = more anomalous; read twice, see ``evaluate_pixels``.
        defects: the defects of each image; empty for a normal image. Any sequence.
        fpr_limits: upper ends of the FPR axis, each in (0, 1].
        names: a name for each image, used in messages.
        threads: images processed at a time; None uses every core, at most 8.

    Raises:
        MetricError: lengths, shapes, scores, saturations or limits that allow no evaluation; names the image.

    Source:
        Bergmann et al., Beyond Dents and Scratches, IJCV 2022, section 4 (definition of sPRO).
    """
    reader = MapReader(maps, names)
    check_lengths(reader, defects, "lists of defects")
    return evaluate_defects(reader, defects, check_limits(fpr_limits), worker_count(threads))


def undefined_saturated(reason: str, fpr_limits: tuple[float, ...] = (0.05,)) -> SaturatedMetrics:
    """The metrics of maps that there is no ground truth for: none has a value.

    Args:
        reason: Why.
        fpr_limits: as for ``evaluate_saturated``.
    """
    none = np.zeros(0, np.int64)
    metrics = SaturatedMetrics(
        au_spro=dict.fromkeys(fpr_limits, NAN),
        regions=Regions(none, none, dict.fromkeys(fpr_limits, np.zeros(0)), {}, saturation=none),
        normal_pixels=0,
    )
    return replace(metrics, undefined=dict.fromkeys(metrics.named(), reason))


def evaluate_defects(
    reader: MapReader, defects: Sequence[Sequence[Defect]], limits: tuple[float, ...], workers: int
) -> SaturatedMetrics:
    """Evaluate what a reader reads, with arguments that have been checked; see :func:`evaluate_saturated`."""
    found: dict[int, _ImageDefects] = {}

    def gather(index: int) -> None:
        if len(image_defects := defects[index]):
            found[index] = _gather(reader, index, image_defects)

    share_out(len(defects), [gather] * workers)
    images = [found[index] for index in sorted(found)]
    ranked = _rank(reader, found, len(defects), _floor(images, len(defects), max(limits)), workers)
    if ranked.misses(max(limits)):
        ranked = _rank(reader, found, len(defects), np.float64(-np.inf), workers)
    ranking = ranked.ranking
    saturation = np.array([scores.size for image in images for scores in image.counted], np.int64)
    reason = ""
    if saturation.size == 0:
        reason = "no image has a defect" if not images else "no mask marks a defect pixel"
    elif ranking.normals == 0:
        reason = "every pixel is a defect pixel"
    contribution = {}
    for limit in limits:
        first, units = ranking.unit_areas(limit)
        pixels = slice(int(np.searchsorted(ranked.threshold_of, first)), None)
        units_found = units[ranked.threshold_of[pixels] - first]
        sums = np.bincount(ranked.defect_of[pixels], weights=units_found, minlength=saturation.size)
        contribution[limit] = sums / saturation
        if reason:
            contribution[limit] = np.full(saturation.size, NAN)
    metrics = SaturatedMetrics(
        au_spro={limit: NAN if reason else float(np.mean(contribution[limit])) for limit in limits},
        regions=Regions(
            image=np.array([reader.number(index) for index in sorted(found) for _ in found[index].counted], np.int64),
            area=np.array([area for image in images for area in image.areas], np.int64),
            contribution=contribution,
            overlap={},
            saturation=saturation,
        ),
        normal_pixels=ranking.normals,
        notes=tuple(note for image in images for note in image.notes),
    )
    return replace(metrics, undefined=dict.fromkeys(metrics.named(), reason)) if reason else metrics


@dataclass(frozen=True)
class _Ranked:
    """The pixels that count, from a lowest score on, in ascending order of their score.

    Attributes:
        ranking: Of their distinct scores among the normal pixels.
        threshold_of: (p,) the distinct score of each pixel.
        defect_of: (p,) the defect of each pixel.
        complete: No pixel lay below the lowest score.
    """

    ranking: Ranking
    threshold_of: NDArray[np.intp]
    defect_of: NDArray[np.int64]
    complete: bool

    def misses(self, limit: float) -> bool:
        """Whether a pixel that was left out may add to the area up to the FPR ``limit``."""
        reached = self.ranking.at_least[0] if self.ranking.at_least.size else 0
        return not self.complete and bool(reached < limit * self.ranking.normals)


def _floor(images: Sequence[_ImageDefects], count: int, limit: float) -> np.float64:
    """Guess a score that somewhat more normal pixels reach than the FPR limit allows: lower ones add nothing.

    Args:
        images: With defects; only they have been read yet.
        count: Of all images.
        limit: The highest limit.
    """
    if not images:
        return np.float64(-np.inf)
    defects = sum(image.scores.size for image in images) / sum(math.prod(image.shape) for image in images)
    share = MARGIN * limit * count / len(images) + defects
    sample = np.concatenate([image.sample for image in images])
    return np.float64(np.quantile(sample, 1 - share, method="lower") if share < 1 else -np.inf)


def _rank(
    reader: MapReader, found: Mapping[int, _ImageDefects], count: int, floor: np.float64, workers: int
) -> _Ranked:
    """Rank the pixels that count and score at least ``floor``."""
    none = [np.empty(0, np.float32)]
    images = [found[index] for index in sorted(found)]
    every = [scores for image in images for scores in image.counted]
    counted = [scores[scores >= floor] for scores in every]
    scores, defect_of = engine.sort_with(
        np.concatenate(counted or none), np.repeat(np.arange(len(counted)), [part.size for part in counted])
    )
    thresholds, threshold_of = engine.distinct(scores)
    reaching = [image.scores[image.scores >= floor] for image in images]
    ranking = engine.rank(
        reader,
        [found[index].shape if index in found else None for index in range(count)],
        thresholds,
        np.bincount(threshold_of),
        np.sort(np.concatenate(reaching or none)),
        np.concatenate([image.sample for image in images] or none),
        workers,
        left_out=sum(image.scores.size for image in images) - sum(part.size for part in reaching),
    )
    return _Ranked(ranking, threshold_of, defect_of, scores.size == sum(part.size for part in every))


def _gather(reader: MapReader, index: int, defects: Sequence[Defect]) -> _ImageDefects:
    """Collect from one image the scores in any defect, and of each defect those that count."""
    counted, areas, notes = [], [], []
    shape = read_mask(defects[0].mask, reader.label(index)).shape
    scores = reader.read(index, shape)
    anywhere = np.zeros(shape, np.bool_)
    for number, defect in enumerate(defects):
        label = f"{reader.label(index)}, defect {number}"
        mask = read_mask(defect.mask, label)
        if mask.shape != shape:
            raise MetricError(f"{label}: the mask has shape {mask.shape}, that of the first defect {shape}")
        if not defect.saturation >= 0 or defect.saturation % 1 != 0:  # the remainder of infinity is NaN
            raise MetricError(f"{label}: saturation must be a number of pixels, is {defect.saturation}")
        anywhere |= mask
        pixels = scores[mask]
        if pixels.size == 0:
            notes.append(f"{label}: left out, its mask marks no pixel")
            continue
        saturation = min(max(int(defect.saturation), 1), pixels.size)
        if saturation != defect.saturation:
            notes.append(f"{label}: saturation {defect.saturation} taken as {saturation}, the area is {pixels.size}")
        first = pixels.size - saturation
        counted.append(np.partition(pixels, first)[first:])
        areas.append(pixels.size)
    return _ImageDefects(shape, scores[anywhere], sample_of(scores).copy(), counted, areas, notes)
