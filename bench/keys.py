"""What makes two results the same: the key of a fit, and the key of what it scores.

A fitted detector is determined by the method with its options and weights, the images it was fitted on, and the code
and packages at work. Its scores are determined by it, the test images, the protocol, and the code that scores. So a
cell whose fit is known need not be trained again because a metric has changed.
"""

import hashlib
import json
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from bench import cell, scoring
from bench.cells import Entrant
from bench.datasets.scenario import Scenario
from bench.errors import DataError
from bench.protocol import PROTOCOL
from bench.source_digest import source_digest
from methods.common.precision import Precision
from methods.registry import load_method

DECODING_PACKAGES = ("pillow",)
"""What images and ground truth are decoded and resized by."""
SCORING_PACKAGES = ("numba", "numpy", *DECODING_PACKAGES)
"""What metrics are computed with."""


def fit_roots(entrant: Entrant, scenario: Scenario) -> list[object]:
    """What determines a fitted detector by its code; how images are decoded and held out is reached from there."""
    roots: list[object] = [load_method(entrant.name), cell.fit, *_reader(scenario)]
    return roots if entrant.photographs is None else [*roots, type(entrant.photographs)]


def score_roots(scenario: Scenario) -> list[object]:
    """What determines, by its code, the metrics of a fitted detector, or of maps that something else made.

    How ground truth is read, and the metrics themselves, are reached from there.
    """
    return [cell.predict, cell.calibrate, scoring.score, scoring.score_further, *_reader(scenario)]


def fit_key(
    entrant: Entrant,
    scenario: Scenario,
    *,
    seed: int,
    train_scale: float,
    precision: Precision,
    tf32: bool,
    device: str,
    hold_out: bool = False,
) -> str:
    """SHA-256 over everything that determines a fitted detector, 64 hexadecimal digits.

    Args:
        entrant: The method.
        scenario: Whose normal images it is fitted on.
        seed: Of the fit.
        train_scale: Factor on its training length.
        precision: Of its networks after the fit.
        tf32: Whether a GPU may round factors to TF32.
        device: ``cpu`` or ``cuda``.
        hold_out: Whether training images are held out though the method does not calibrate on them.
    """
    return _hash(
        method=entrant.name,
        config=entrant.options(),
        weights=[weights.sha256 or weights.tag for weights in entrant.weights] or entrant.unavailable,
        data=_fingerprint(scenario, "train_fingerprint"),
        photographs=entrant.photographs.identity if entrant.photographs else None,
        rules=PROTOCOL.of_fits(),
        seed=seed,
        train_scale=train_scale,
        precision=precision,
        tf32=tf32,
        device=device,
        hold_out=hold_out,
        code=source_digest(*fit_roots(entrant, scenario)),
        packages=installed(*load_method(entrant.name).packages, *DECODING_PACKAGES),
    )


def score_key(fitted: str, scenario: Scenario) -> str:
    """SHA-256 over everything that determines metrics, 64 hexadecimal digits.

    Args:
        fitted: Key of the fit; of maps that something else made, a digest that stands for them.
        scenario: Whose test images are scored.
    """
    return _hash(
        fitted=fitted,
        scenario=scenario.id,
        data=_fingerprint(scenario, "test_fingerprint"),
        masks=scenario.mask_rule,
        protocol=PROTOCOL.hash,
        code=source_digest(*score_roots(scenario)),
        packages=installed(*SCORING_PACKAGES),
    )


@cache
def installed(*packages: str) -> dict[str, str | None]:
    """The version of each package, ``None`` where it is not installed."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _reader(scenario: Scenario) -> list[object]:
    """The module that has read the scenario from its folder."""
    return [import_module(scenario.layout)] if scenario.layout else []


def _fingerprint(scenario: Scenario, which: str) -> str:
    try:
        return str(getattr(scenario, which))
    except DataError as error:
        # The cell will fail and say why; its key must only differ from that of the repaired scenario.
        return str(error)


def _hash(**determines: object) -> str:
    return hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()
