"""Runs one cell: decode → fit → maps → metrics."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
from bench.datasets.masks import read_mask
from bench.datasets.scenario import Scenario
from bench.machine.devices import Slot
from bench.plan import Cell
from bench.protocol import PROTOCOL
from bench.scoring import Scores, check_ground_truth, evaluate, predict
from methods.detector import Detector, FitContext, ImageSet, Progress
from methods.registry import load_method
from results.arrays import Example, choose_examples, make_example
from results.record import Data, ImageResult, Timings

RECORDED_LOSSES = 200

Report = Callable[[Progress], None]


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a cell yields: its part of the record, and arrays.

    Attributes:
        scores: The metrics.
        images: Per-image scores.
        data: Which images.
        timings: Seconds per stage.
        training_steps: Optimiser steps done; ``None`` for a method that does not train.
        losses: Training loss, thinned.
        examples: Some test images to look at.
        maps: Image name to network-resolution map; empty unless they are to be kept.
    """

    scores: Scores
    images: list[ImageResult]
    data: Data
    timings: Timings
    training_steps: int | None
    losses: list[tuple[int, float]]
    examples: list[Example]
    maps: dict[str, NDArray[np.float32]]


def measure(cell: Cell, slot: Slot, cache: Cache, report: Report, *, keep_maps: bool) -> Measurement:
    """Fit the method on the scenario's normal images and evaluate its last state on all test images.

    Nothing but the cell decides the result: global random generators are seeded, so it does not matter what the
    process did before.

    Args:
        cell: What to run.
        slot: Where.
        cache: Where decoded images are kept.
        report: Is told how far the cell is.
        keep_maps: Return the anomaly maps too.

    Raises:
        DataError: The scenario cannot be used, or a file in it is damaged.
        MethodError: The method cannot be fitted, or gives scores that are no numbers.
        MetricError: The maps allow no evaluation.
    """
    scenario, clock = cell.scenario, _Clock()
    scenario.check()
    make_deterministic(cell.seed)
    detector = load_method(cell.entrant.name)(cell.entrant.config)
    with clock("decode"):
        report(Progress("decode", 0, 2))
        train, validation = training_images(scenario, detector, cell.seed, cache)
        report(Progress("decode", 1, 2))
        test = decode_images([image.path for image in scenario.test], detector.input_size, cache)
        check_ground_truth(scenario.test, test.sizes, saturated=scenario.saturated)
    with clock("fit"):
        report(Progress("fit", 0, 1))
        detector.fit(train, validation, _context(cell, slot, report))
    names = [image.name for image in scenario.test]
    with clock("maps"):
        found = predict(detector, cell.entrant.title, ImageSet(test.pixels), names, report)
    with clock("metrics"):
        report(Progress("metrics", 0, 1))
        scores = evaluate(
            found, scenario.test, test.sizes, PROTOCOL, saturated=scenario.saturated, threads=slot.threads
        )
    images = image_results(scenario, found.scores)
    return Measurement(
        scores=scores,
        images=images,
        data=data_of(scenario, len(train), len(validation)),
        timings=Timings(**clock.seconds),
        training_steps=detector.training_steps,
        losses=thin(detector.losses),
        examples=make_examples(scenario, images, test.sizes, found.maps),
        maps=dict(zip(names, found.maps, strict=True)) if keep_maps else {},
    )


def make_deterministic(seed: int) -> None:
    """Seed every global generator and choose deterministic algorithms where there are any."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (for libraries that draw from it)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that is about to be overwritten guards against reading it too early, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def split(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Hold out a share of ``count`` training images, at least one, and leave at least one.

    Returns:
        The indices to fit on and those held out, each ascending.
    """
    held_out = min(max(1, round(fraction * count)), count - 1)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted(order[held_out:]), sorted(order[:held_out])


def thin(losses: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Keep at most ``RECORDED_LOSSES`` of the finite (step, loss) pairs, evenly spread, the last one among them."""
    pairs = [(int(step), float(loss)) for step, loss in losses if math.isfinite(loss)]
    if len(pairs) <= RECORDED_LOSSES:
        return pairs
    chosen = np.linspace(0, len(pairs) - 1, RECORDED_LOSSES).round().astype(int)
    return [pairs[index] for index in chosen]


def training_images(scenario: Scenario, detector: Detector, seed: int, cache: Cache) -> tuple[ImageSet, ImageSet]:
    """The images to fit on and those held out: none for a method that does not calibrate on them."""
    pixels = decode_images(scenario.train, detector.input_size, cache).pixels
    if not detector.uses_validation:
        return ImageSet(pixels), ImageSet(pixels, [])
    if scenario.validation:
        return ImageSet(pixels), ImageSet(decode_images(scenario.validation, detector.input_size, cache).pixels)
    train, validation = split(len(pixels), PROTOCOL.validation_fraction, seed)
    return ImageSet(pixels, train), ImageSet(pixels, validation)


def _context(cell: Cell, slot: Slot, report: Report) -> FitContext:
    return FitContext(
        seed=cell.seed,
        device=torch.device(slot.device),
        train_scale=cell.train_scale,
        weights_dir=cell.weights_dir,
        photographs=cell.entrant.photographs,
        progress=report,
    )


def image_results(scenario: Scenario, scores: NDArray[np.float64]) -> list[ImageResult]:
    """The image scores, in the order of the scenario's test images, as a record stores them."""
    return [
        ImageResult(name=image.name, defect=image.defect, anomalous=image.anomalous, score=score)
        for image, score in zip(scenario.test, scores.tolist(), strict=True)
    ]


def data_of(scenario: Scenario, train: int | None, validation: int | None) -> Data:
    """The scenario's images as a record describes them, with how many a method was fitted and calibrated on."""
    anomalous = sum(image.anomalous for image in scenario.test)
    return Data(
        fingerprint=scenario.fingerprint,
        train=train,
        validation=validation,
        test_normal=len(scenario.test) - anomalous,
        test_anomalous=anomalous,
        note=scenario.note,
    )


def make_examples(
    scenario: Scenario,
    images: list[ImageResult],
    sizes: Sequence[tuple[int, int]],
    maps: Sequence[NDArray[Any]],
) -> list[Example]:
    """Some test images for the report's figure, with ground truth and map."""
    places = {image.name: index for index, image in enumerate(scenario.test)}
    examples = []
    for name in choose_examples(images):
        index = places[name]
        image, size = scenario.test[index], sizes[index]
        # From the original file: the images that the method saw have lost their aspect ratio.
        pixels = decode_images([image.path], size, Cache(Path(), enabled=False)).pixels[0]
        mask = read_mask(image, size)
        examples.append(
            make_example(
                name,
                np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()),
                np.zeros(size, np.bool_) if mask is None else mask,
                maps[index],
            )
        )
    return examples


class _Clock:
    """Measures named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start
