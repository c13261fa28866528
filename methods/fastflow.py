"""FastFlow (Yu et al., 2021): likelihood of backbone features under normalising flows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity, backbone_spec
from methods.detector import Detector, FitContext, ImageSet, Progress
from methods.registry import changed_options
from methods.weights.files import WeightIdentity

STRIDES = (4, 8, 16)
CLAMP = 2.0
"""Bound of the logarithm of a coupling's scale."""
CACHE_BYTES = 4 * 2**30
"""Features of the training images are kept, not recomputed, if they fit into so much memory."""


@dataclass(frozen=True)
class FastFlowConfig:
    """Options of FastFlow; the defaults are those of the EfficientAD paper's comparison (its appendix B).

    Attributes:
        backbone: A key of ``methods.common.backbones.BACKBONES``.
        backbone_weights: ``auto``, ``random`` or the path of a state dict.
        image_size: Height and width in pixels.
        training_steps: Optimiser steps at training scale 1.
        batch_size: Images per step.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        flow_steps: Coupling blocks per level.
        hidden_ratio: Hidden channels of a coupling's subnet, relative to its input channels.
        conv3x3_only: 3x3 convolutions in all subnets, instead of 3x3 and 1x1 in turn.
    """

    backbone: str = "wide_resnet50_2"
    backbone_weights: str = "auto"
    image_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = (256, 256)
    training_steps: Annotated[int, Field(gt=0)] = 200
    batch_size: Annotated[int, Field(gt=0)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    flow_steps: Annotated[int, Field(gt=0)] = 8
    hidden_ratio: Annotated[float, Field(gt=0)] = 1.0
    conv3x3_only: bool = False

    def __post_init__(self) -> None:
        backbone_spec(self.backbone)


class FastFlow(Detector):
    """FastFlow with a fixed number of training steps; there is no official code."""

    title = "FastFlow"
    source = "Yu et al., arXiv 2111.07677, 2021"
    Config = FastFlowConfig
    presets: ClassVar = {"embedded": {"backbone": "efficientnet_lite0"}}
    uses_validation = False

    @classmethod
    def weights(cls, config: FastFlowConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the backbone's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    @classmethod
    def deviations(cls, config: FastFlowConfig, context: FitContext) -> list[str]:
        """Options that differ from the defaults, and the training length if it does."""
        steps = context.training_steps(config.training_steps)
        usual = FastFlowConfig.training_steps
        length = [f"{steps} of {usual} training steps"] if steps != usual else []
        return [*changed_options(config, "training_steps"), *length]

    def __init__(self, config: FastFlowConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train the flows; ``validation`` is not used."""
        self.device = context.device
        with _seeded(context.seed):
            backbone = Backbone(self.config.backbone, STRIDES, self.config.backbone_weights, context.weights_dir)
            self.backbone = backbone.to(self.device)
            shapes = [(level.shape[1], level.shape[2], level.shape[3]) for level in self._levels(train[:1])]
            self.flows = [_LevelFlow(shape, self.config).to(self.device) for shape in shapes]
        self._train(_Features(self, train, context), context)

    def _train(self, features: "_Features", context: FitContext) -> None:
        parameters = [p for flow in self.flows for p in flow.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, self.config.learning_rate, weight_decay=self.config.weight_decay)
        steps = context.training_steps(self.config.training_steps)
        draws = _draws(len(features), self.config.batch_size, torch.Generator().manual_seed(context.seed))
        losses = []
        for step in range(1, steps + 1):
            levels = features[next(draws)]
            loss = torch.stack([flow.loss(level) for flow, level in zip(self.flows, levels, strict=True)]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append((step, loss.item()))
            context.progress(Progress("training", step, steps, losses[-1][1]))
        self.training_steps = steps
        self.losses = losses

    @torch.no_grad()
    def _levels(self, images: Tensor) -> list[Tensor]:
        levels: list[Tensor] = self.backbone(images.to(self.device))
        return levels

    @torch.no_grad()
    def anomaly_map(self, images: Tensor) -> Tensor:
        """Mean over levels of minus the likelihood (B, H, W), upsampled; between -1 and 0."""
        maps = []
        for flow, level in zip(self.flows, self._levels(images), strict=True):
            likelihood = torch.exp(-0.5 * flow(level)[0].square().mean(1, keepdim=True))
            maps.append(F.interpolate(-likelihood, self.input_size, mode="bilinear").squeeze(1))
        return torch.stack(maps).mean(0)


class _LevelFlow(nn.Module):
    """Normalising flow of one backbone level, features (B, C, h, w) to a standard normal of the same shape."""

    def __init__(self, shape: tuple[int, int, int], config: FastFlowConfig) -> None:
        super().__init__()
        from FrEIA.framework import SequenceINN
        from FrEIA.modules import AllInOneBlock

        self.norm = nn.LayerNorm(shape)
        self.flow = SequenceINN(*shape)
        for step in range(config.flow_steps):
            kernel = 3 if config.conv3x3_only or step % 2 == 0 else 1
            self.flow.append(
                AllInOneBlock,
                subnet_constructor=_Subnet(kernel, config.hidden_ratio),
                affine_clamping=CLAMP,
                permute_soft=False,
            )
        nn.utils.convert_conv2d_weight_memory_format(self.flow, torch.channels_last)

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) and the logarithm of the Jacobian's determinant (B,)."""
        latents, log_determinant = self.flow(self.norm(level).contiguous(memory_format=torch.channels_last))
        return latents, log_determinant

    def loss(self, level: Tensor) -> Tensor:
        """Negative log-likelihood of the features but for a constant, mean over the batch."""
        latents, log_determinant = self(level)
        loss: Tensor = (0.5 * latents.square().sum((1, 2, 3)) - log_determinant).mean()
        return loss


@dataclass(frozen=True)
class _Subnet:
    """Builds the network that predicts a coupling's scale and shift."""

    kernel: int
    hidden_ratio: float

    def __call__(self, inputs: int, outputs: int) -> nn.Sequential:
        hidden = max(1, int(self.hidden_ratio * inputs))
        return nn.Sequential(
            nn.Conv2d(inputs, hidden, self.kernel, padding="same"),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, outputs, self.kernel, padding="same"),
        )


class _Features:
    """The frozen backbone's features of the training images: never change, so are computed once if they fit."""

    def __init__(self, detector: FastFlow, images: ImageSet, context: FitContext) -> None:
        self._detector = detector
        self._images = images
        self._cache: list[Tensor] = []
        shapes = [level.shape[1:] for level in detector._levels(images[:1])]
        if 4 * len(images) * sum(shape.numel() for shape in shapes) > CACHE_BYTES:
            return
        self._cache = [torch.empty(len(images), *shape) for shape in shapes]
        done = 0
        for batch in images.batches(16):
            for cached, level in zip(self._cache, detector._levels(batch), strict=True):
                cached[done : done + len(batch)] = level
            done += len(batch)
            context.progress(Progress("features", done, len(images)))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, chosen: Tensor) -> list[Tensor]:
        """Each level's features (B, C, h, w) of the chosen images."""
        if self._cache:
            return [level[chosen].to(self._detector.device) for level in self._cache]
        return self._detector._levels(self._images[chosen])


def _draws(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of at most ``size`` of ``count`` images at a time, forever: each image once, in random order, anew."""
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        if len(queue) < min(size, count):
            queue = torch.cat([queue, torch.randperm(count, generator=generator)])
        yield queue[:size]
        queue = queue[size:]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, which networks are initialised from, and put their states back afterwards."""
    with torch.random.fork_rng(devices=[]):
        state = np.random.get_state()  # noqa: NPY002 - FrEIA draws its permutations from this one
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
