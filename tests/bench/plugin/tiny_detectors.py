"""A detector from another package, as small as can be, that can be told to misbehave.

The environment variable ``TINY`` says how, per seed: ``0=allocate 1=kill``.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.detector import Detector, FitContext, ImageSet, Progress
from methods.errors import MethodError
from methods.weights.files import WeightIdentity


@dataclass(frozen=True)
class TinyConfig:
    """Options of Tiny.

    Attributes:
        side: Height and width of its input.
        training_steps: How many normal images it draws.
        norm: How it measures a difference.
        pause: Seconds to sleep in each step.
    """

    side: int = 32
    training_steps: int = 20
    norm: Literal["absolute", "squared"] = "absolute"
    pause: float = 0.0


class Tiny(Detector):
    """How far a pixel is from the mean of some normal images."""

    title = "Tiny"
    source = "Nobody, nowhere, 2026"
    Config = TinyConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"embedded": {"side": 24}}

    def __init__(self, config: TinyConfig) -> None:
        self.config = config
        self.input_size = (config.side, config.side)

    @classmethod
    def weights(cls, config: TinyConfig, weights_dir: Path) -> list[WeightIdentity]:
        return []

    @classmethod
    def deviations(cls, config: TinyConfig, context: FitContext) -> list[str]:
        return []

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        self.behaviour = dict(part.split("=") for part in os.environ.get("TINY", "").split()).get(str(context.seed))
        misbehave(self.behaviour)
        self.training_steps = context.training_steps(self.config.training_steps)
        total = torch.zeros(3, *self.input_size)
        losses = []
        for step in range(1, self.training_steps + 1):
            image = train[int(torch.randint(len(train), ()))].float()
            losses.append((step, (image - total / max(1, step - 1)).square().mean().item()))
            total += image
            time.sleep(self.config.pause)
            context.progress(Progress("train", step, self.training_steps))
        self.losses = losses
        self.mean = total / self.training_steps

    def anomaly_map(self, images: Tensor) -> Tensor:
        difference = (images.float() - self.mean).mean(1)
        maps = difference.abs() if self.config.norm == "absolute" else difference.square()
        return maps / 0 * 0 if self.behaviour == "nan" else maps


def misbehave(how: str | None) -> None:
    sys.stdout.write("about to fit\n")
    if how == "allocate":
        torch.empty(2**62, dtype=torch.uint8)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "error":
        raise MethodError("the method cannot do this\n  Do something else.")
    if how == "bug":
        raise ZeroDivisionError("nobody expected this")
