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
from torch import Tensor, nn

from methods.common.precision import run_network
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


class TinyModule(nn.Module):
    """How far a pixel is from the mean of some normal images, in levels of gray."""

    networks = ("gray",)
    behaviour: str | None = None
    mean: Tensor

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.squared = config.norm == "squared"
        self.gray = nn.Conv2d(3, 1, 1, bias=False).requires_grad_(False)
        nn.init.constant_(self.gray.weight, 1 / 3)
        self.register_buffer("mean", torch.zeros(config.side, config.side))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        difference = self.levels(images) - self.mean
        maps = difference.square() if self.squared else difference.abs()
        if self.behaviour == "nan":
            maps = maps / 0 * 0
        return maps, maps.flatten(1).amax(1)

    def levels(self, images: Tensor) -> Tensor:
        """Gray levels 0-255, float32 (B, side, side)."""
        levels = images.float() if images.dtype == torch.uint8 else 255 * images.float()
        return run_network(self.gray, levels)[:, 0]


class Tiny(Detector[TinyConfig]):
    """How far a pixel is from the mean of some normal images."""

    title = "Tiny"
    source = "Nobody, nowhere, 2026"
    Config = TinyConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"embedded": {"side": 24}}
    packages = ("torch",)
    without_effect = frozenset({"pause"})
    Module: ClassVar[type[TinyModule]] = TinyModule

    def __init__(self, config: TinyConfig) -> None:
        self.config = config
        self.input_size = (config.side, config.side)

    @classmethod
    def weights(cls, config: TinyConfig, weights_dir: Path) -> list[WeightIdentity]:
        return []

    @classmethod
    def training_length(cls, config: TinyConfig) -> int:
        return config.training_steps

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        behaviour = dict(part.split("=") for part in os.environ.get("TINY", "").split()).get(str(context.seed))
        misbehave(behaviour)
        self.training_steps = context.training_steps(self.config.training_steps)
        module = self.Module(self.config)
        total = torch.zeros_like(module.mean)
        losses = []
        for step in range(1, self.training_steps + 1):
            image = module.levels(train[torch.randint(len(train), (1,))])[0]
            losses.append((step, (image - total / max(1, step - 1)).square().mean().item()))
            total += image
            time.sleep(self.config.pause)
            context.progress(Progress("train", step, self.training_steps))
        self.losses = losses
        self.implementation = {"mean": "running"}
        module.mean.copy_(total / self.training_steps)
        module.behaviour = behaviour
        self.fitted = module.to(context.device).eval()

    @classmethod
    def build_module(cls, config: TinyConfig, state: Mapping[str, Tensor]) -> TinyModule:
        return cls.Module(config)


def misbehave(how: str | None) -> None:
    sys.stdout.write("about to fit\n")
    if how == "allocate":
        torch.empty(2**62, dtype=torch.uint8)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "error":
        raise MethodError("the method cannot do this\n  Do something else.")
    if how == "hang":
        time.sleep(600)
    if how == "bug":
        raise ZeroDivisionError("nobody expected this")
