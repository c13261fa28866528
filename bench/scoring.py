"""From a fitted detector to metrics: anomaly maps of the test images, scored at full resolution."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bench.datasets.masks import read_defects, read_mask
from bench.datasets.scenario import TestImage
from bench.errors import DataError
from bench.protocol import Protocol
from methods.detector import Detector, ImageSet, Progress
from methods.errors import MethodError
from metrics import (
    Regions,
    SaturatedMetrics,
    UpsampledMaps,
    evaluate_images,
    evaluate_loco,
    evaluate_pixels,
    loco_halves,
)
from results.regions import RegionResult

PREDICTION_BATCH = 8
HALVES = ("structural", "logical")
"""Kinds of anomalies in LOCO form; the defect folders begin with these words."""

Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a detector says about all test images.

    Attributes:
        maps: Per image a float array (h, w), at the network's resolution or any other.
        scores: float64 (n,).
    """

    maps: Sequence[NDArray[Any]]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What the maps are worth.

    Attributes:
        metrics: By name; a value that is not defined is ``None``.
        undefined: By name, the reason.
        notes: What had to be corrected in the ground truth, by image.
        regions: Every defect region; none where the metrics are undefined.
    """

    metrics: dict[str, float | None]
    undefined: dict[str, str]
    notes: tuple[str, ...]
    regions: tuple[RegionResult, ...]


def check_ground_truth(images: Sequence[TestImage], sizes: Sequence[tuple[int, int]], *, saturated: bool) -> None:
    """Read every mask once, before a training of hours rather than after it.

    Raises:
        DataError: One is missing, damaged or of another size than its image.
    """
    for image, size in zip(images, sizes, strict=True):
        if saturated:
            _kind(image)
            read_defects(image, size)
        else:
            read_mask(image, size)


def predict(
    detector: Detector, title: str, images: ImageSet, names: Sequence[str], progress: Callable[[Progress], None]
) -> Predictions:
    """Run the detector over the test images in batches of bounded size.

    Raises:
        MethodError: A map or a score is NaN or infinite, or of another shape than promised; names the first image.
    """
    maps: list[NDArray[np.float32]] = []
    scores: list[float] = []
    with torch.inference_mode():
        for batch in images.batches(PREDICTION_BATCH):
            found = detector.predict(batch)
            if found.maps.ndim != 3 or len(found.maps) != len(batch) or found.scores.shape != (len(batch),):
                raise MethodError(
                    f"{title} returned maps {tuple(found.maps.shape)} and scores {tuple(found.scores.shape)} for "
                    f"{len(batch)} images; (B, h, w) and (B,) are needed"
                )
            finite = found.maps.isfinite().flatten(1).all(1) & found.scores.isfinite()
            if not finite.all():
                first = len(maps) + int((~finite).nonzero()[0])
                raise MethodError(
                    f"{title} gives NaN or infinite anomaly scores, first for {names[first]}: training diverged, or "
                    "the method cannot take such an image"
                )
            maps.extend(found.maps.float().cpu().numpy())
            scores.extend(found.scores.double().cpu().tolist())
            progress(Progress("maps", len(maps), len(images)))
    return Predictions(maps, np.array(scores))


def evaluate(
    found: Predictions,
    images: Sequence[TestImage],
    sizes: Sequence[tuple[int, int]],
    protocol: Protocol,
    *,
    saturated: bool,
    threads: int,
) -> Scores:
    """Compute every metric of the vocabulary that applies.

    Maps are upsampled and ground truth is read image by image: full-resolution maps never lie in memory together.

    Args:
        found: The detector's predictions, in the order of ``images``.
        images: All test images.
        sizes: Height and width of each on disk.
        protocol: The rules.
        saturated: The scenario is in LOCO form.
        threads: Images processed at a time.

    Raises:
        DataError: A mask is missing, damaged or of another size.
        MetricError: The maps allow no evaluation.
    """
    names = [image.name for image in images]
    maps = UpsampledMaps(found.maps, list(sizes))
    if saturated:
        return _evaluate_halves(maps, found.scores, images, sizes, protocol, threads)
    masks = OnDemand(len(images), lambda index: read_mask(images[index], sizes[index]))
    pixels = evaluate_pixels(maps, masks, protocol.fpr_limits, names=names, threads=threads)
    at_image = evaluate_images(found.scores, [image.anomalous for image in images], names=names)
    wanted = {
        name: value
        for name, value in {**pixels.named(), **at_image.named()}.items()
        if not name.startswith(("au_pro_q", "size_robustness")) or name.endswith(f"@{protocol.quartile_fpr_limit}")
    }
    notes = tuple(_nothing_marked(names[index]) for index in pixels.empty_masks)
    regions = [] if math.isnan(next(iter(pixels.au_pro.values()))) else _regions(pixels.regions, images)
    return _scores(wanted, {**pixels.undefined, **at_image.undefined}, notes, regions)


def _evaluate_halves(
    maps: UpsampledMaps,
    scores: NDArray[np.float64],
    images: Sequence[TestImage],
    sizes: Sequence[tuple[int, int]],
    protocol: Protocol,
    threads: int,
) -> Scores:
    """Score structural and logical anomalies apart, each with all normal images, and average."""
    defects = OnDemand(len(images), lambda index: read_defects(images[index], sizes[index]))
    kinds = [_kind(image) or "normal" for image in images]
    pixels = evaluate_loco(
        maps, defects, kinds, protocol.fpr_limits, names=[image.name for image in images], threads=threads
    )
    values, undefined = pixels.named(), pixels.undefined
    halves = {
        half: evaluate_images(scores[chosen], [kinds[index] == half for index in chosen])
        for half, chosen in loco_halves(kinds).items()
    }
    for half, at_image in halves.items():
        values |= {f"{half}/{name}": value for name, value in at_image.named().items()}
        undefined |= {f"{half}/{name}": why for name, why in at_image.undefined.items()}
        undefined |= {name: f"{half}: {why}" for name, why in at_image.undefined.items()}
    for name in next(iter(halves.values())).named():
        values[name] = sum(values[f"{half}/{name}"] for half in halves) / len(halves)
    marked = {*pixels.structural.image.tolist(), *pixels.logical.image.tolist()}
    empty = [image.name for index, image in enumerate(images) if image.anomalous and index not in marked]
    found = [region for half in (pixels.structural, pixels.logical) for region in _saturated_regions(half, images)]
    return _scores(values, undefined, (*map(_nothing_marked, empty), *pixels.notes), found)


def _regions(regions: Regions, images: Sequence[TestImage]) -> list[RegionResult]:
    rows = regions.rows([image.name for image in images], [image.defect for image in images])
    return [
        RegionResult(
            image=row["name"],
            defect=row["defect_type"],
            area=row["area"],
            values={name: value for name, value in row.items() if "@" in name},
        )
        for row in rows
    ]


def _saturated_regions(half: SaturatedMetrics, images: Sequence[TestImage]) -> list[RegionResult]:
    if half.undefined:
        return []
    defects = zip(half.image.tolist(), half.area.tolist(), half.saturation.tolist(), strict=True)
    return [
        RegionResult(
            image=images[image].name,
            defect=images[image].defect,
            area=area,
            saturation=saturation,
            values={f"au_spro@{limit}": float(values[number]) for limit, values in half.contribution.items()},
        )
        for number, (image, area, saturation) in enumerate(defects)
    ]


def _kind(image: TestImage) -> str | None:
    if not image.anomalous:
        return None
    for half in HALVES:
        if image.defect.startswith(half):
            return half
    raise DataError(
        f"the anomalous test images of {image.name} are neither structural nor logical: in a scenario with "
        "saturation thresholds, folders are called structural_anomalies and logical_anomalies"
    )


def _nothing_marked(name: str) -> str:
    return f"{name}: anomalous, but its ground truth marks no pixel"


def _scores(
    values: dict[str, float], undefined: dict[str, str], notes: tuple[str, ...], regions: Sequence[RegionResult]
) -> Scores:
    metrics = {name: None if math.isnan(value) else value for name, value in values.items()}
    return Scores(metrics, undefined, notes, tuple(regions))


class OnDemand(Sequence[Item]):
    """A sequence whose items are made when they are asked for; safe to read from several threads."""

    def __init__(self, length: int, make: Callable[[int], Item]) -> None:
        self._length = length
        self._make = make

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._make(index)

    def __iter__(self) -> Iterator[Item]:
        return (self._make(index) for index in range(self._length))
