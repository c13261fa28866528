"""FastFlow (Yu et al., 2021): likelihood of backbone features under normalising flows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.frozen_features import FrozenFeatures
from methods.common.precision import run_network
from methods.common.resampling import Resize
from methods.common.seeding import reproducible
from methods.common.training import Epoch
from methods.common.training import train as run_training
from methods.detector import Detector, FitContext, ImageSet
from methods.weights.catalogue import backbone_spec
from methods.weights.files import WeightIdentity

STRIDES = (4, 8, 16)
CLAMP = 2.0
"""Bound of the logarithm of a coupling's scale."""
FEATURE_BYTES = 4 * 2**30
"""Of the training images' features, so much is kept on the device; what does not fit is computed at each step."""


@dataclass(frozen=True)
class FastFlowConfig:
    """Options of FastFlow; the defaults are those of the EfficientAD paper's comparison (its appendix B).

    Attributes:
        backbone: A convolutional one of ``methods.weights.catalogue.BACKBONES``. The paper's numbers come from
            anomalib, which took timm's weights of 2021; ``wide_resnet50_2`` are torchvision's.
        backbone_weights: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        image_size: Height and width in pixels.
        training_steps: Optimiser steps at training scale 1.
        batch_size: Images per step.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        flow_steps: Coupling blocks per level.
        hidden_ratio: Hidden channels of a coupling's subnet, relative to its input channels.
        conv3x3_only: 3x3 convolutions in all subnets, instead of 3x3 and 1x1 in turn.
    """

    backbone: str = "wide_resnet50_2.racm_in1k"
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
        backbone_spec(self.backbone, "convolutional")


class FastFlowModule(nn.Module):
    """A frozen backbone, a normalising flow for each of its levels, and the map that is made of their likelihoods.

    Args:
        backbone: With the levels of ``STRIDES``.
        config: Options.
    """

    networks = ("backbone.network", "flows")

    def __init__(self, backbone: Backbone, config: FastFlowConfig) -> None:
        super().__init__()
        self.backbone = backbone
        grids = backbone.grid(config.image_size)
        shapes = [(channels, *grid) for channels, grid in zip(backbone.channels, grids, strict=True)]
        self.flows = nn.ModuleList(_LevelFlow(shape, config) for shape in shapes)
        self.upsampling = nn.ModuleList(Resize(grid, config.image_size) for grid in grids)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean over levels of minus the likelihood, (B, H, W), between -1 and 0, and its largest values (B,).

        Args:
            images: (B, 3, H, W), uint8 0-255 or floating 0-1.
        """
        maps = []
        for flow, level, upsample in zip(self.flows, self.backbone(images), self.upsampling, strict=True):
            latents, _ = run_network(flow, level)
            maps.append(upsample(-torch.exp(-0.5 * latents.square().mean(1))))
        mean = torch.stack(maps).mean(0)
        return mean, mean.flatten(1).amax(1)

    def loss(self, levels: list[Tensor]) -> Tensor:
        """Sum over levels of the negative log-likelihood, but for a constant, of backbone features (B, C, h, w)."""
        return torch.stack([_loss(*flow(level)) for flow, level in zip(self.flows, levels, strict=True)]).sum()


class FastFlow(Detector[FastFlowConfig]):
    """FastFlow with a fixed number of training steps; there is no official code."""

    title = "FastFlow"
    source = "Yu et al., arXiv 2111.07677, 2021"
    Config = FastFlowConfig
    _embedded: ClassVar = {"backbone": "efficientnet_lite0"}
    presets: ClassVar = {"embedded": _embedded, "demo": {**_embedded, "training_steps": 15}}
    packages = ("torch", "timm", "FrEIA")
    fused = "batch norms"

    def __init__(self, config: FastFlowConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: FastFlowConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the backbone's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    @classmethod
    def training_length(cls, config: FastFlowConfig) -> int:
        """Optimiser steps at training scale 1."""
        return config.training_steps

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train the flows; ``validation`` is not used.

        Raises:
            WeightsError: The backbone's weights cannot be had.
        """
        # FrEIA draws the flows' permutations from NumPy's global generator, PyTorch their weights from its own.
        backbone = Backbone(self.config.backbone, STRIDES, self.config.backbone_weights, context.weights_dir)
        module = FastFlowModule(backbone, self.config).to(context.device)
        features = FrozenFeatures(module.backbone, train, context.device, FEATURE_BYTES, progress=context.progress)
        self.training_steps = context.training_steps(self.config.training_steps)
        self.losses = _train(module, features, self.config, self.training_steps, context)
        self.fitted = module.eval().requires_grad_(False)

    @classmethod
    def build_module(cls, config: FastFlowConfig, state: Mapping[str, Tensor]) -> FastFlowModule:
        """Backbone and flows; the permutations are part of the state."""
        with reproducible(0, torch.device("cpu")):  # FrEIA draws from NumPy's global generator
            return FastFlowModule(Backbone(config.backbone, STRIDES, None, Path()), config)


def _train(
    module: FastFlowModule, features: FrozenFeatures, config: FastFlowConfig, steps: int, context: FitContext
) -> list[tuple[int, float]]:
    parameters = [parameter for parameter in module.flows.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, config.learning_rate, weight_decay=config.weight_decay)
    draws = _draws(len(features), config.batch_size, torch.Generator().manual_seed(context.seed))

    def step() -> Tensor:
        loss = module.loss(features[next(draws).tolist()])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    losses = run_training(step, steps, context, "training", Epoch(module, -(-len(features) // config.batch_size)))
    optimizer.zero_grad()
    return losses


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


def _loss(latents: Tensor, log_determinant: Tensor) -> Tensor:
    """Negative log-likelihood but for a constant, mean over the batch, of what a flow returns."""
    return (0.5 * latents.square().sum((1, 2, 3)) - log_determinant).mean()


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


def _draws(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of at most ``size`` of ``count`` images at a time, forever: each image once, in random order, anew."""
    queue = torch.empty(0, dtype=torch.int64)
    while True:
        if len(queue) < min(size, count):
            queue = torch.cat([queue, torch.randperm(count, generator=generator)])
        yield queue[:size]
        queue = queue[size:]
