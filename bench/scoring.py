"""From anomaly maps and ground truth to metrics, at full resolution."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.conditions import evaluate_conditions
from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
from bench.datasets.masks import GroundTruth, read_ground_truth
from bench.datasets.scenario import Scenario, TestImage
from bench.errors import DataError
from bench.protocol import PROTOCOL
from bench.thresholding import (
    NO_PIXEL_LABELS,
    PART_IS_ENOUGH,
    Calibration,
    TestMaps,
    Thresholded,
    Uncalibrated,
    Values,
    apply_rules,
)
from metrics import (
    HALVES,
    Defect,
    Halves,
    ImageMetrics,
    LocoMetrics,
    PixelMetrics,
    Regions,
    SaturatedMetrics,
    UpsampledMaps,
    evaluate_images,
    evaluate_loco,
    evaluate_loco_images,
    evaluate_pixels,
    evaluate_saturated,
    undefined_pixels,
    undefined_saturated,
)
from results.arrays import Example, choose_examples, make_example
from results.record import ImageResult
from results.regions import RegionResult

Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True, eq=False)
class AnomalyMaps:
    """What a detector says about all test images of a scenario, in their order.

    Attributes:
        maps: Per image a float array (h, w), at the network's resolution or any other.
        scores: float64 (n,).
    """

    maps: Sequence[NDArray[Any]]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class ScenarioMetrics:
    """What the maps of a scenario are worth.

    Attributes:
        localisation: Of maps against defect regions; in LOCO form of either half.
        detection: Of image scores against labels; likewise.
        notes: What had to be corrected in the ground truth, by image.
        regions: Every defect region; none where the metrics are undefined.
    """

    localisation: PixelMetrics | LocoMetrics | SaturatedMetrics
    detection: ImageMetrics | Halves[ImageMetrics]
    notes: tuple[str, ...]
    regions: tuple[RegionResult, ...]

    def named(self) -> dict[str, float | None]:
        """Every metric of the vocabulary that applies, by name; ``None`` where it is undefined."""
        values = {**self.localisation.named(), **self.detection.named()}
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    @property
    def undefined(self) -> Mapping[str, str]:
        """The reason for each metric without a value, by name."""
        return {**self.localisation.undefined, **self.detection.undefined}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Anomaly maps of a scenario with all that a record says of them.

    Attributes:
        scenario: Whose test images they are of.
        maps: The maps and image scores.
        metrics: What they are worth.
        images: Per-image scores.
        examples: Some test images to look at.
        calibration: Normal images that thresholds were chosen on, or why there are none.
        thresholded: What these thresholds are worth.
        conditions: What the maps of each light or view are worth.
        mask_notes: What is to be known of the masks, one phrase each.
        mask_warning: What every table must say of them; ``None`` if nothing.
    """

    scenario: Scenario
    maps: AnomalyMaps
    metrics: ScenarioMetrics
    images: list[ImageResult]
    examples: list[Example]
    calibration: Calibration | Uncalibrated
    thresholded: Thresholded
    conditions: Values
    mask_notes: tuple[str, ...] = ()
    mask_warning: str | None = None

    def named(self) -> dict[str, float | None]:
        """Every metric of the vocabulary that applies, by name; ``None`` where it is undefined."""
        more = {**self.thresholded.metrics.named(), **self.conditions.named()}
        return self.metrics.named() | {name: None if math.isnan(value) else value for name, value in more.items()}

    @property
    def undefined(self) -> dict[str, str]:
        """The reason for each metric without a value, by name."""
        return {**self.metrics.undefined, **self.thresholded.metrics.undefined, **self.conditions.undefined}


def read_and_check(scenario: Scenario, sizes: Sequence[tuple[int, int]]) -> GroundTruth:
    """Read every mask once, before a training of hours rather than after it.

    Args:
        scenario: Whose test images' masks to read.
        sizes: Height and width of each test image on disk.

    Raises:
        DataError: One is missing, damaged or of another size than its image, or what their values mean is not clear.
    """
    if _is_halved(scenario):
        for image in scenario.test:
            _kind(image)
    return read_ground_truth(scenario, sizes)


def evaluate(
    maps: AnomalyMaps,
    truth: GroundTruth,
    threads: int,
    calibration: Calibration | Uncalibrated,
) -> Evaluation:
    """Score the maps of a scenario, and gather what else a record says of them.

    Args:
        maps: In the order of the scenario's test images.
        truth: The scenario's ground truth, read once.
        threads: Images processed at a time.
        calibration: Normal images that thresholds are chosen on, or why there are none.

    Raises:
        DataError: An image or a mask is missing, damaged or of another size.
        MetricError: The maps allow no evaluation.
    """
    scenario = truth.scenario
    metrics = score(maps, truth, threads)
    images = [
        ImageResult(
            name=image.name, defect=image.defect, anomalous=image.anomalous, score=value, condition=image.condition
        )
        for image, value in zip(scenario.test, maps.scores.tolist(), strict=True)
    ]
    examples = _examples(truth, images, maps.maps)
    thresholded, conditions = score_further(maps, truth, threads, calibration)
    return Evaluation(
        scenario, maps, metrics, images, examples, calibration, thresholded, conditions, truth.notes, truth.warning
    )


def score_further(
    maps: AnomalyMaps,
    truth: GroundTruth,
    threads: int,
    calibration: Calibration | Uncalibrated,
) -> tuple[Thresholded, Values]:
    """Evaluate the maps at thresholds chosen on normal images, and those of each light or view apart.

    Arguments and errors are those of :func:`evaluate`.
    """
    scenario = truth.scenario
    images, names = scenario.test, scenario.names
    anomalous = [image.anomalous for image in images]
    upsampled = UpsampledMaps(maps.maps, list(truth.sizes))
    halved = _is_halved(scenario)
    no_masks = PART_IS_ENOUGH if scenario.saturated else "" if scenario.pixel_labels else NO_PIXEL_LABELS
    masks = None if no_masks else masks_of(truth)
    test = TestMaps(
        names=names,
        maps=upsampled,
        scores=maps.scores,
        kinds=[_kind(image) if halved else "anomalous" if image.anomalous else "normal" for image in images],
        masks=masks,
        no_masks=no_masks,
        halved=halved,
        threads=threads,
    )
    light = [image.condition for image in images]
    conditions = evaluate_conditions(light, upsampled, maps.scores, anomalous, masks, names=names, threads=threads)
    return apply_rules(calibration, test), conditions


def score(maps: AnomalyMaps, truth: GroundTruth, threads: int) -> ScenarioMetrics:
    """Compute every metric of the vocabulary that applies, under the protocol.

    Maps are upsampled and ground truth is read image by image: full-resolution maps never lie in memory together.
    Arguments and errors are those of :func:`evaluate`.
    """
    scenario = truth.scenario
    upsampled = UpsampledMaps(maps.maps, list(truth.sizes))
    if _is_halved(scenario):
        return _score_halves(upsampled, maps.scores, truth, threads)
    if scenario.saturated:
        return _score_saturated(upsampled, maps.scores, truth, threads)
    images, names = scenario.test, scenario.names
    limits, quartile_limits = PROTOCOL.fpr_limits, (PROTOCOL.quartile_fpr_limit,)
    if _is_labelled(scenario):
        localisation = evaluate_pixels(
            upsampled, masks_of(truth), limits, quartile_limits=quartile_limits, names=names, threads=threads
        )
    else:
        localisation = undefined_pixels(NO_PIXEL_LABELS, limits, quartile_limits)
    detection = evaluate_images(maps.scores, [image.anomalous for image in images], names=names)
    notes = tuple(_nothing_marked(names[index]) for index in localisation.empty_masks)
    return ScenarioMetrics(localisation, detection, notes, _regions(localisation.regions, scenario))


def _score_halves(
    maps: UpsampledMaps, scores: NDArray[np.float64], truth: GroundTruth, threads: int
) -> ScenarioMetrics:
    """Score structural and logical anomalies apart, each with all normal images, and average."""
    scenario = truth.scenario
    kinds, names = [_kind(image) for image in scenario.test], scenario.names
    if _is_labelled(scenario):
        localisation = evaluate_loco(maps, _defects_of(truth), kinds, PROTOCOL.fpr_limits, names=names, threads=threads)
    else:
        localisation = LocoMetrics(*[undefined_saturated(NO_PIXEL_LABELS, PROTOCOL.fpr_limits)] * 2)
    detection = evaluate_loco_images(scores, kinds, names=names)
    halves = (localisation.structural.regions, localisation.logical.regions)
    regions = tuple(region for half in halves for region in _regions(half, scenario))
    notes = (*_unmarked(scenario, halves), *localisation.notes)
    return ScenarioMetrics(localisation, detection, notes, regions)


def _score_saturated(
    maps: UpsampledMaps, scores: NDArray[np.float64], truth: GroundTruth, threads: int
) -> ScenarioMetrics:
    """Score defects of which a part is enough, where nobody tells structural from logical ones (AutoVI)."""
    scenario = truth.scenario
    limits = PROTOCOL.fpr_limits
    if _is_labelled(scenario):
        localisation = evaluate_saturated(maps, _defects_of(truth), limits, names=scenario.names, threads=threads)
    else:
        localisation = undefined_saturated(NO_PIXEL_LABELS, limits)
    detection = evaluate_images(scores, [image.anomalous for image in scenario.test], names=scenario.names)
    notes = (*_unmarked(scenario, [localisation.regions]), *localisation.notes)
    return ScenarioMetrics(localisation, detection, notes, _regions(localisation.regions, scenario))


def _defects_of(truth: GroundTruth) -> "OnDemand[list[Defect]]":
    """The defects of each test image in LOCO form, read when they are asked for."""
    return OnDemand(len(truth.sizes), truth.defects)


def _unmarked(scenario: Scenario, regions: Sequence[Regions]) -> Iterator[str]:
    """A note for each anomalous image whose ground truth marks nothing."""
    marked = {index for part in regions for index in part.image.tolist()}
    for index, image in enumerate(scenario.test):
        if image.masks and index not in marked:
            yield _nothing_marked(image.name)


def masks_of(truth: GroundTruth) -> "OnDemand[NDArray[np.bool_] | None]":
    """The defect pixels of each test image, read when they are asked for; ``None`` for a normal one."""
    return OnDemand(len(truth.sizes), truth.mask)


def _regions(regions: Regions, scenario: Scenario) -> tuple[RegionResult, ...]:
    """The regions as they are kept beside a record; none if their values are undefined."""
    results = []
    for row in regions.rows(scenario.names, [image.defect for image in scenario.test]):
        values = {name: value for name, value in row.items() if "@" in name}
        if any(map(math.isnan, values.values())):
            return ()
        results.append(
            RegionResult(
                image=row["name"],
                defect=row["defect_type"],
                area=row["area"],
                saturation=row.get("saturation"),
                values=values,
            )
        )
    return tuple(results)


def _is_labelled(scenario: Scenario) -> bool:
    """Whether it is known which pixels show a defect: there is ground truth, or no image is anomalous."""
    return scenario.pixel_labels or not any(image.anomalous for image in scenario.test)


def _is_halved(scenario: Scenario) -> bool:
    """Whether structural and logical anomalies are told apart, as in MVTec LOCO."""
    anomalous = [image for image in scenario.test if image.anomalous]
    return scenario.saturated and (not anomalous or any(image.defect.startswith(HALVES) for image in anomalous))


def _kind(image: TestImage) -> str:
    """``normal``, or the half of LOCO that an anomalous image belongs to."""
    if not image.anomalous:
        return "normal"
    for half in HALVES:
        if image.defect.startswith(half):
            return half
    raise DataError(
        f"{image.name} is neither structural nor logical, while others are: in such a scenario, all folders of "
        "anomalous images are called structural_anomalies or logical_anomalies"
    )


def _nothing_marked(name: str) -> str:
    return f"{name}: anomalous, but its ground truth marks no pixel"


def _examples(truth: GroundTruth, images: list[ImageResult], maps: Sequence[NDArray[Any]]) -> list[Example]:
    """Some test images for the report's figure, with ground truth and map."""
    scenario = truth.scenario
    places = {image.name: index for index, image in enumerate(scenario.test)}
    examples = []
    for name in choose_examples(images):
        index = places[name]
        image, size = scenario.test[index], truth.sizes[index]
        # From the original file: the images that the method saw have lost their aspect ratio.
        pixels = decode_images([image.path], size, Cache(Path(), enabled=False), bits=bit_depth(scenario)).pixels[0]
        mask = truth.mask(index) if image.masks else None if image.anomalous else np.zeros(size, np.bool_)
        picture = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        examples.append(make_example(name, picture, mask, maps[index]))
    return examples


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
