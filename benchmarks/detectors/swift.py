"""A detector that takes milliseconds, so that what is left of a cell's time is the runner's own.

Named on the command line as ``benchmarks/detectors/swift.py:Swift``.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from methods.detector import Detector, FitContext, ImageSet
from methods.weights.files import WeightIdentity


@dataclass(frozen=True)
class SwiftConfig:
    """Options of Swift.

    Attributes:
        pause: Seconds that a fit sleeps.
    """

    pause: float = 0.0


class SwiftModule(nn.Module):
    """How far a pixel is from the mean of the normal images."""

    networks = ()
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8, 8))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = images.float() if images.dtype == torch.uint8 else 255 * images.float()
        maps = (levels.mean(1) - self.mean).abs()
        return maps, maps.flatten(1).amax(1)


class Swift(Detector[SwiftConfig]):
    """How far a pixel is from the mean of the normal images, and of one more image drawn by the seed."""

    title = "Swift"
    source = "none"
    Config = SwiftConfig
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"embedded": {}}
    without_effect = frozenset({"pause"})
    input_size = (8, 8)

    def __init__(self, config: SwiftConfig) -> None:
        self.config = config

    @classmethod
    def weights(cls, config: SwiftConfig, weights_dir: Path) -> list[WeightIdentity]:
        return []

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        time.sleep(self.config.pause)
        module = SwiftModule()
        images = train[torch.arange(len(train))].float().mean(1)
        drawn = images[torch.randint(len(train), (1,))][0]
        module.mean.copy_((images.sum(0) + drawn) / (len(train) + 1))
        self.fitted = module.to(context.device).eval()

    @classmethod
    def build_module(cls, config: SwiftConfig, state: Mapping[str, Tensor]) -> SwiftModule:
        return SwiftModule()
