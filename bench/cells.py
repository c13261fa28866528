"""What a cell is: one method in one configuration, on one scenario, with one seed."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.datasets.photographs import PhotographFolder
from bench.datasets.scenario import Scenario
from methods.common.precision import Precision
from methods.weights.files import WeightIdentity
from results.record import Scalar
from results.store import CellId

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Entrant:
    """A method in the configuration in which it takes part.

    Attributes:
        name: In the registry.
        title: As tables print it.
        source: The paper.
        config: Its options: an instance of the method's ``Config``.
        preset: The named option set they come from, if any.
        deviations: What distinguishes it from the paper's configuration; what the runner adds, such as a precision,
            included.
        weights: Its pretrained weights.
        photographs: Images for its pretraining penalty; ``None`` for a method that has none.
        unavailable: Why its pretrained weights cannot be had, and what to do: its cells fail with this; empty if it
            has all of them.
    """

    name: str
    title: str
    source: str
    config: "DataclassInstance"
    preset: str | None
    deviations: tuple[str, ...]
    weights: tuple[WeightIdentity, ...]
    photographs: PhotographFolder | None
    unavailable: str = ""

    def options(self) -> dict[str, Scalar | list[Scalar]]:
        """Its options as a record stores them."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self.config).items()}


@dataclass(frozen=True)
class Cell:
    """One method on one scenario with one seed.

    Attributes:
        entrant: The method.
        scenario: The images.
        seed: Seeds every random choice.
        train_scale: Factor on the training length.
        training_steps: Optimiser steps to expect; ``None`` for a method that does not train.
        precision: In which the networks of the fitted detector run.
        tf32: Whether matrix products and convolutions on a GPU may round their factors to TF32.
        weights_dir: Where downloaded weights are kept.
        hold_out: Fit on what is left when validation images are held out, though the method does not calibrate on them.
        force_precision: Compute in a precision that the CPU only emulates; changes no result.
        fit_key: SHA-256 over everything that determines the fitted detector.
        key: SHA-256 over that and everything that determines what it scores: what the record is called by.
    """

    entrant: Entrant
    scenario: Scenario
    seed: int
    train_scale: float
    training_steps: int | None
    precision: Precision
    tf32: bool
    weights_dir: Path
    hold_out: bool
    force_precision: bool
    fit_key: str
    key: str

    @property
    def label(self) -> str:
        """Method, scenario and seed, for display."""
        return f"{self.entrant.name} · {self.scenario.id} · {self.seed}"

    @property
    def id(self) -> CellId:
        """What names its folder."""
        return CellId(self.entrant.name, self.scenario.collection.name, self.scenario.name, self.seed, self.key)


def _plain(value: object) -> Scalar | list[Scalar]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_scalar(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> Scalar:
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)
