"""Thresholds chosen on normal images that a detector was not fitted on, and what they do on the test images."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics import (
    Decisions,
    DeclaredRate,
    ExceedingPixels,
    Halves,
    MeanPlusDeviations,
    NormalImages,
    ThresholdRule,
    UpsampledMaps,
    count_exceeding,
    decide,
    loco_halves,
)
from results.record import Threshold

RULES: tuple[ThresholdRule, ...] = (
    MeanPlusDeviations("image"),
    DeclaredRate("image"),
    MeanPlusDeviations("pixel"),
    DeclaredRate("pixel", rate_of="pixels"),
    DeclaredRate("pixel", rate_of="images"),
)
"""The rules whose thresholds every cell is evaluated at, as far as there are images to choose them on."""

NONE_HELD_OUT = "no normal images beside those fitted on and tested on: bench run --hold-out keeps some"
PART_IS_ENOUGH = "marking a part of a defect is enough in this form of ground truth, so its pixels are not counted"
NO_PIXEL_LABELS = "there is no ground truth of pixels"
NO_SCORES = "the normal images that thresholds are chosen on have maps but no image scores"


@dataclass(frozen=True, eq=False)
class Calibration:
    """Normal images that a detector was not fitted on, with what it says of them.

    Attributes:
        names: Of the images.
        maps: Per image a float array (h, w), at the network's resolution or any other.
        scores: float64 (n,) of the images; ``None`` where only their maps are known.
        sizes: Height and width of each image on disk.
        images_are: Which images they are, in words.
    """

    names: Sequence[str]
    maps: Sequence[NDArray[Any]]
    scores: NDArray[np.float64] | None
    sizes: Sequence[tuple[int, int]]
    images_are: str


@dataclass(frozen=True)
class Uncalibrated:
    """That there are no such images, and why."""

    reason: str


@dataclass(frozen=True, eq=False)
class TestMaps:
    """The test images, with what a detector says of them.

    Attributes:
        names: Of the images.
        maps: Their maps at full resolution, made when they are read.
        scores: float64 (n,) of the images.
        kinds: ``normal`` or what kind of anomaly each shows; in LOCO form ``structural`` or ``logical``.
        masks: The defect pixels of each image, ``None`` for a normal one; ``None`` if there are none to count.
        no_masks: Why there are none.
        halved: Structural and logical anomalies are evaluated apart, then averaged.
        threads: Images processed at a time.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    names: Sequence[str]
    maps: Sequence[NDArray[Any]]
    scores: NDArray[np.float64]
    kinds: Sequence[str]
    masks: Sequence[NDArray[np.bool_] | None] | None
    no_masks: str = ""
    halved: bool = False
    threads: int = 1

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """(n,) which images are anomalous."""
        return np.array([kind != "normal" for kind in self.kinds])


@dataclass(frozen=True)
class Values:
    """Metrics by name, NaN where undefined for the reason of the same name."""

    values: Mapping[str, float] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)

    def named(self) -> dict[str, float]:
        """The metrics, by name."""
        return dict(self.values)


@dataclass(frozen=True)
class Thresholded:
    """What the rules have chosen, and what that is worth.

    Attributes:
        thresholds: One for each rule that could choose.
        metrics: ``image_f1@mean+3sd`` and its like: F1, false-positive rate (``fpr``) and recall of images called
            anomalous by their score (``image``), of pixels (``pixel``), and of images called anomalous because any of
            their pixels is (``any_pixel``).
    """

    thresholds: tuple[Threshold, ...]
    metrics: Values | Halves[Values]


def apply_rules(calibration: Calibration | Uncalibrated, test: TestMaps) -> Thresholded:
    """Choose a threshold by each rule, and evaluate the test images at it.

    Raises:
        MetricError: A map or score is not finite; names the image.
    """
    chosen, reasons = _choose(calibration, test.threads)
    cuts = [value for rule, value in chosen if rule.level == "pixel"]
    pixels = count_exceeding(test.maps, test.masks, cuts, names=test.names, threads=test.threads) if cuts else None
    decisions = [(rule, _decisions_at(rule, value, test, pixels, cuts)) for rule, value in chosen]
    everything = np.arange(len(test.names))

    def evaluate(positions: NDArray[np.intp]) -> Values:
        return _values(((rule, decided(positions)) for rule, decided in decisions), reasons, test.no_masks)

    thresholds = [
        _threshold(rule, value, calibration, decided(everything))
        for (rule, value), (_, decided) in zip(chosen, decisions, strict=True)
    ]
    if not test.halved:
        return Thresholded(tuple(thresholds), evaluate(everything))
    halves = (np.array(positions, np.intp) for positions in loco_halves(test.kinds))
    return Thresholded(tuple(thresholds), Halves(*map(evaluate, halves)))


_Chosen = list[tuple[ThresholdRule, float]]
_Decided = Callable[[NDArray[np.intp]], dict[str, Decisions]]
"""What is decided at a threshold on the images of these places: ``image`` or ``pixel`` and ``any_pixel``."""


def _choose(calibration: Calibration | Uncalibrated, threads: int) -> tuple[_Chosen, dict[ThresholdRule, str]]:
    """What each rule chooses, and why the others choose nothing."""
    if isinstance(calibration, Uncalibrated):
        return [], dict.fromkeys(RULES, calibration.reason)
    count = len(calibration.names)
    scores = np.zeros(count) if calibration.scores is None else calibration.scores
    maps = UpsampledMaps(calibration.maps, list(calibration.sizes))
    normal = NormalImages(scores, maps, names=calibration.names, threads=threads)
    chosen: _Chosen = []
    reasons: dict[ThresholdRule, str] = {}
    for rule in RULES:
        reason = rule.undefined_reason(count)
        if rule.level == "image" and calibration.scores is None:
            reason = NO_SCORES
        value = math.nan if reason else rule.choose(normal)
        if math.isfinite(value):
            chosen.append((rule, value))
        else:
            reasons[rule] = reason or "the normal scores are so large that their deviation is no number"
    return chosen, reasons


def _decisions_at(
    rule: ThresholdRule, value: float, test: TestMaps, pixels: ExceedingPixels | None, cuts: Sequence[float]
) -> _Decided:
    anomalous = test.anomalous
    if rule.level == "image":
        called = test.scores > value
        return lambda positions: {"image": decide(called[positions], anomalous[positions])}
    assert pixels is not None
    place, counts = cuts.index(value), pixels
    any_pixel = counts.images(place)
    return lambda positions: {
        "pixel": counts.subset(positions).decide(place, anomalous[positions]),
        "any_pixel": decide(any_pixel[positions], anomalous[positions]),
    }


def _values(
    decided: Iterator[tuple[ThresholdRule, dict[str, Decisions]]], reasons: Mapping[ThresholdRule, str], no_masks: str
) -> Values:
    values: dict[str, float] = {}
    undefined: dict[str, str] = {}
    for rule, by_kind in decided:
        for kind, decisions in by_kind.items():
            for what, value in decisions.named().items():
                name = f"{kind}_{what}@{rule.name}"
                missing = no_masks if kind == "pixel" and what != "fpr" else ""
                reason = missing or decisions.undefined.get(what, "")
                values[name] = math.nan if reason else value
                undefined |= {name: reason} if reason else {}
    for rule, reason in reasons.items():
        names = [f"{kind}_{what}@{rule.name}" for kind in _kinds(rule) for what in ("f1", "fpr", "recall")]
        values |= dict.fromkeys(names, math.nan)
        undefined |= dict.fromkeys(names, reason)
    return Values(values, undefined)


def _kinds(rule: ThresholdRule) -> tuple[str, ...]:
    return ("image",) if rule.level == "image" else ("pixel", "any_pixel")


def _threshold(
    rule: ThresholdRule, value: float, calibration: Calibration | Uncalibrated, decided: dict[str, Decisions]
) -> Threshold:
    assert isinstance(calibration, Calibration)
    kind = "image" if rule.level == "image" else "any_pixel" if rule.rate_of == "images" else "pixel"
    realised = decided[kind].false_positive_rate
    return Threshold(
        rule=rule.name,
        level=rule.level,
        calibrated_on=calibration.images_are,
        images=len(calibration.names),
        value=value,
        rate_of=rule.rate_of,
        declared_false_positive_rate=rule.declared,
        realised_false_positive_rate=None if math.isnan(realised) else realised,
    )
