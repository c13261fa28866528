"""One cell: fit → predict → score, with the fitted detector as a value between them."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.cells import Cell
from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
from bench.datasets.scenario import Scenario
from bench.machine.devices import Slot
from bench.models import FitFacts, load_detector, read_description
from bench.protocol import PROTOCOL
from bench.scoring import AnomalyMaps, Evaluation, evaluate, read_and_check, score
from bench.thresholding import NONE_HELD_OUT, Calibration, Uncalibrated
from methods.common.precision import check_precision, set_precision, tensor_float_32
from methods.common.seeding import reproducible
from methods.detector import Detector, FitContext, ImageSet, Prediction, Progress
from methods.errors import MethodError, WeightsError
from methods.registry import load_method
from results.arrays import MAPS_FILE, read_maps
from results.epoch_states import EpochState
from results.migrations import load_record
from results.record import Timings
from results.store import RECORD_FILE

RECORDED_LOSSES = 200
PREDICTION_BATCH = 8

Report = Callable[[Progress], None]
Observe = Callable[[float, Detector[Any]], None]
"""Is shown a detector after so many epochs."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted detector on its device, in the precision of its cell, and what its record says of the fit.

    Attributes:
        detector: The detector.
        facts: How it was fitted.
        kept: The folder that its model was taken from; ``None`` if the cell has fitted it.
    """

    detector: Detector[Any]
    facts: FitFacts
    kept: Path | None = None


@dataclass(frozen=True, eq=False)
class CellResult:
    """What a cell yields.

    Attributes:
        fitted: The fitted detector.
        evaluation: Its maps of the test images, and what they are worth.
        timings: Seconds per stage.
        states: Every epoch's state on the test images; ``None`` if they were not to be looked at.
    """

    fitted: Fitted
    evaluation: Evaluation
    timings: Timings
    states: Sequence[EpochState] | None = None


def run_cell(
    cell: Cell, slot: Slot, cache: Cache, report: Report, kept: Path | None = None, *, oracle: bool = False
) -> CellResult:
    """Fit the method on the scenario's normal images and evaluate its last state on all test images.

    Nothing but the cell decides the result: it does not matter what the process did before.

    Args:
        cell: What to run.
        slot: Where.
        cache: Where decoded images are kept.
        report: Is told how far the cell is.
        kept: Folder with the model of an earlier cell of the same fit key, which is taken instead of a fit; its maps,
            too, if it has any and the images are the same.
        oracle: Evaluate every epoch's state of the fit, too; the fit learns nothing of it.

    Raises:
        DataError: The scenario cannot be used, or a file in it or the kept model is damaged.
        MethodError: The method cannot be fitted, its weights are missing, or it gives scores that are no numbers.
        MetricError: The maps allow no evaluation.
        ResultError: The kept maps are damaged.
    """
    if cell.entrant.unavailable:
        raise WeightsError(cell.entrant.unavailable)
    scenario, clock = cell.scenario, _Clock()
    scenario.check()
    with clock("decode"):
        report(Progress("decode", 0, 1))
        bits = bit_depth(scenario)
        paths = [image.path for image in scenario.test]
        test = decode_images(paths, new_detector(cell).input_size, cache, bits=bits)
        truth = read_and_check(scenario, test.sizes)
    states: list[EpochState] = []

    def observe(epoch: float, state: Detector[Any]) -> None:
        maps = predict(state, scenario.names, test.pixels, report, tf32=cell.tf32)
        states.append(EpochState(epoch=epoch, metrics=score(maps, truth, slot.threads).named()))

    fitted = fit(cell, slot, cache, report, observe if oracle else None) if kept is None else restore(kept, slot)
    with clock("maps"):
        maps = kept_maps(kept, scenario) if kept is not None else None
        maps = maps or predict(fitted.detector, scenario.names, test.pixels, report, tf32=cell.tf32)
        held_out = held_out_images(scenario, fitted.facts.validation, cell.seed)
        calibration = calibrate(fitted.detector, scenario, held_out, cache, report, tf32=cell.tf32)
    with clock("metrics"):
        report(Progress("metrics", 0, 1))
        evaluation = evaluate(maps, truth, slot.threads, calibration)
    timings = Timings(
        decode=clock.seconds["decode"] + fitted.facts.decode_seconds,
        fit=fitted.facts.fit_seconds,
        maps=clock.seconds["maps"],
        metrics=clock.seconds["metrics"],
    )
    return CellResult(fitted, evaluation, timings, states if oracle else None)


def new_detector(cell: Cell) -> Detector[Any]:
    """The cell's detector, not fitted yet."""
    return load_method(cell.entrant.name)(cell.entrant.config)


def fit(cell: Cell, slot: Slot, cache: Cache, report: Report, observe: Observe | None = None) -> Fitted:
    """Fit the cell's method on the normal images of its scenario, and put it into the cell's precision.

    Args:
        cell: What to fit.
        slot: Where.
        cache: Where decoded images are kept.
        report: Is told how far it is.
        observe: Is shown the detector at the end of every epoch, before that.

    Raises:
        DataError: An image is damaged.
        MethodError: The method cannot be fitted, or the device only emulates the precision.
    """
    device, clock = torch.device(slot.device), _Clock()
    check_precision(cell.precision, device, forced=cell.force_precision)
    detector = new_detector(cell)
    with clock("decode"):
        train, validation = training_images(cell.scenario, detector, cell.seed, cache, hold_out=cell.hold_out)
    report(Progress("fit", 0, 1))
    context = FitContext(
        seed=cell.seed,
        device=device,
        train_scale=cell.train_scale,
        weights_dir=cell.weights_dir,
        photographs=cell.entrant.photographs,
        force_precision=cell.force_precision,
        progress=report,
        observe=None if observe is None else partial(_show, detector, observe, clock),
    )
    with clock("fit"), reproducible(cell.seed, device), tensor_float_32(cell.tf32):
        detector.fit(train, validation, context)
    set_precision(detector.module(), cell.precision)
    facts = FitFacts(
        train=len(train),
        validation=len(validation),
        training_steps=detector.training_steps,
        losses=thin(detector.losses),
        implementation=dict(detector.implementation),
        decode_seconds=clock.seconds["decode"],
        fit_seconds=clock.seconds["fit"] - clock.seconds.get("observe", 0.0),
    )
    return Fitted(detector, facts)


def _show(detector: Detector[Any], observe: Observe, clock: "_Clock", epoch: float, module: nn.Module) -> None:
    """Show the detector as it is after so many epochs of its fit, which goes on afterwards."""
    state = copy(detector)
    state.fitted = module
    with clock("observe"):
        observe(epoch, state)


def restore(kept: Path, slot: Slot) -> Fitted:
    """Take the model that an earlier cell has kept in its folder instead of a fit; the facts say whose it is.

    Raises:
        DataError: The model is damaged.
        MethodError: The method cannot use it.
    """
    description = read_description(kept)
    implementation = {**description.fit.implementation, "fit": f"kept model of {description.record[:12]}"}
    facts = description.fit.model_copy(update={"implementation": implementation})
    return Fitted(load_detector(kept, slot.device), facts, kept)


def kept_maps(kept: Path, scenario: Scenario) -> AnomalyMaps | None:
    """The maps and scores that a cell kept in its folder; ``None`` if it kept none, or of other images.

    Raises:
        ResultError: A file is damaged.
    """
    if not (kept / MAPS_FILE).is_file() or not (kept / RECORD_FILE).is_file():
        return None
    record = load_record(kept / RECORD_FILE)
    if record.status == "failed" or record.data is None or record.data.fingerprint != scenario.fingerprint:
        return None
    maps, scores = read_maps(kept), {image.name: image.score for image in record.images}
    return AnomalyMaps([maps[name] for name in scenario.names], np.array([scores[name] for name in scenario.names]))


def held_out_images(scenario: Scenario, held_out: int, seed: int) -> tuple[Path, ...]:
    """Normal images that a detector was not fitted on: the scenario's own validation images, or those held out.

    Args:
        scenario: Whose images.
        held_out: How many training images were held out from the fit; none of them if 0.
        seed: Of the fit.
    """
    if scenario.validation or not held_out:
        return scenario.validation
    return tuple(scenario.train[index] for index in split(len(scenario.train), PROTOCOL.validation_fraction, seed)[1])


def calibrate(
    detector: Detector[Any], scenario: Scenario, images: Sequence[Path], cache: Cache, report: Report, *, tf32: bool
) -> Calibration | Uncalibrated:
    """Run a fitted detector over the normal images that thresholds are chosen on, as over the test images.

    Args:
        detector: The detector.
        scenario: Whose images.
        images: As :func:`held_out_images` chooses them.
        cache: Where decoded images are kept.
        report: Is told how far it is.
        tf32: Whether a GPU may round the factors of float32 products.

    Raises:
        DataError: An image is damaged.
        MethodError: A map or a score is NaN or infinite; names the first image.
    """
    if not images:
        return Uncalibrated(NONE_HELD_OUT)
    decoded = decode_images(images, detector.input_size, cache, bits=bit_depth(scenario))
    names = [image_name(path) for path in images]
    maps = predict(detector, names, decoded.pixels, report, tf32=tf32)
    return Calibration(names, maps.maps, maps.scores, decoded.sizes, calibrated_on(scenario))


def image_name(path: Path) -> str:
    """What a normal image that is no test image is called: ``train/good/000``."""
    return f"{path.parent.parent.name}/{path.parent.name}/{path.stem}"


def calibrated_on(scenario: Scenario) -> str:
    """Which normal images thresholds are chosen on, in words."""
    return "validation images of the scenario" if scenario.validation else "held-out training images"


def predict(
    detector: Detector[Any], names: Sequence[str], pixels: torch.Tensor, report: Report, *, tf32: bool
) -> AnomalyMaps:
    """Run a fitted detector over images, in batches of bounded size.

    Args:
        detector: The detector.
        names: Of the images, in messages.
        pixels: uint8 (N, 3, H, W) of the detector's input size.
        report: Is told how far it is.
        tf32: Whether a GPU may round the factors of float32 products.

    Raises:
        MethodError: A map or a score is NaN or infinite, or of another shape than promised; names the first image.
    """
    maps: list[NDArray[np.float32]] = []
    scores: list[float] = []
    images = ImageSet(pixels)
    with tensor_float_32(tf32):
        for batch in images.batches(PREDICTION_BATCH):
            prediction = detector.predict(batch)
            _check(prediction, detector.title, names[len(maps) :][: len(batch)])
            maps.extend(prediction.maps.float().cpu().numpy())
            scores.extend(prediction.scores.double().cpu().tolist())
            report(Progress("maps", len(maps), len(images)))
    return AnomalyMaps(maps, np.array(scores))


def _check(prediction: Prediction, title: str, names: Sequence[str]) -> None:
    maps, scores = prediction.maps, prediction.scores
    if maps.ndim != 3 or len(maps) != len(names) or scores.shape != (len(names),):
        raise MethodError(
            f"{title} returned maps {tuple(maps.shape)} and scores {tuple(scores.shape)} for {len(names)} images; "
            "(B, h, w) and (B,) are needed"
        )
    finite = maps.isfinite().flatten(1).all(1) & scores.isfinite()
    if not finite.all():
        raise MethodError(
            f"{title} gives NaN or infinite anomaly scores, first for {names[int((~finite).nonzero()[0])]}: training "
            "diverged, or the method cannot take such an image"
        )


def training_images(
    scenario: Scenario, detector: Detector[Any], seed: int, cache: Cache, *, hold_out: bool = False
) -> tuple[ImageSet, ImageSet]:
    """The images to fit on and those held out: none for a method that does not calibrate on them, unless asked for."""
    bits = bit_depth(scenario)
    pixels = decode_images(scenario.train, detector.input_size, cache, bits=bits).pixels
    if not detector.uses_validation and not hold_out:
        return ImageSet(pixels), ImageSet(pixels, [])
    if scenario.validation:
        own = decode_images(scenario.validation, detector.input_size, cache, bits=bits)
        return ImageSet(pixels), ImageSet(own.pixels)
    train, validation = split(len(pixels), PROTOCOL.validation_fraction, seed)
    return ImageSet(pixels, train), ImageSet(pixels, validation)


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


class _Clock:
    """Sums the seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
