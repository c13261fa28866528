"""SimpleNet (Liu et al., CVPR 2023): a discriminator of adapted patch features from the same with noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.batches import batches
from methods.common.frozen_features import FrozenFeatures
from methods.common.nearest import rows
from methods.common.patch_features import PatchFeatures
from methods.common.precision import run_network
from methods.common.resampling import Resize
from methods.common.training import Epoch
from methods.common.training import train as run_training
from methods.detector import Detector, FitContext, ImageSet
from methods.errors import MethodError
from methods.training_length import Epochs, optimiser_steps
from methods.weights.catalogue import backbone_spec
from methods.weights.files import WeightIdentity

STRIDES = (8, 16)
MARGIN = 0.5
"""Beyond it, a discriminator's output costs nothing."""
LEAK = 0.2
"""Slope of the discriminator's activation for negative numbers."""
FEATURE_BYTES = 4 * 2**30
"""Of the training images' features, so much is kept on the device; what does not fit is computed at each step."""


@dataclass(frozen=True)
class SimpleNetConfig:
    """Options of SimpleNet; the defaults are those of the official code, but for the centre crop, which is left out.

    The official code evaluates the test images after every fourth epoch and keeps the best state; here it is the last.

    Attributes:
        backbone: A convolutional one of ``methods.weights.catalogue.BACKBONES``.
        backbone_weights: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        image_size: Height and width in pixels.
        dim: Numbers per patch, and per patch and level before they are pooled to that, even.
        hidden_dim: Hidden units of the discriminator.
        epochs: Passes over the training images at training scale 1.
        batch_size: Images per step.
        adaptor_learning_rate: Of AdamW, which trains the adaptor.
        adaptor_weight_decay: Likewise; the official code leaves it at PyTorch's default.
        discriminator_learning_rate: Of Adam, which trains the discriminator.
        discriminator_weight_decay: Likewise.
        noise: Standard deviation of what is added to adapted features; it has to suit the scale of the backbone's.
        sigma: Of the Gaussian that smooths anomaly maps, in pixels of the input.
    """

    backbone: str = "wide_resnet50_2"
    backbone_weights: str = "auto"
    image_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = (288, 288)
    dim: Annotated[int, Field(gt=0, multiple_of=2)] = 1536
    hidden_dim: Annotated[int, Field(gt=0)] = 1024
    epochs: Annotated[int, Field(gt=0)] = 160
    batch_size: Annotated[int, Field(gt=0)] = 8
    adaptor_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    adaptor_weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-2
    discriminator_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-4
    discriminator_weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    noise: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.015
    sigma: Annotated[float, Field(gt=0)] = 4.0

    def __post_init__(self) -> None:
        backbone_spec(self.backbone, "convolutional")


class SimpleNetModule(nn.Module):
    """Patch features, the adaptor and the discriminator, and the map that is made of what the latter says.

    Args:
        features: Of patches, frozen.
        config: Options.
    """

    networks = ("features.backbone.network", "adaptor", "discriminator")

    def __init__(self, features: PatchFeatures, config: SimpleNetConfig) -> None:
        super().__init__()
        self.features = features
        self.noise = config.noise
        self.adaptor = nn.Linear(config.dim, config.dim)
        self.discriminator = nn.Sequential(
            nn.Linear(config.dim, config.hidden_dim),
            nn.BatchNorm1d(config.hidden_dim),
            nn.LeakyReLU(LEAK),
            nn.Linear(config.hidden_dim, 1, bias=False),
        )
        for layer in (self.adaptor, *self.discriminator):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
        self.upsample = Resize(features.grid, config.image_size, config.sigma)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, H, W) and image scores (B,) of images (B, 3, H, W), uint8 0-255 or floating 0-1.

        A patch's score is minus what the discriminator says of it. A map is upsampled and smoothed; the image score is
        the largest patch score before that.
        """
        patches = rows(self.features(images))
        normality = run_network(self.discriminator, run_network(self.adaptor, patches))
        patch_scores = -normality.view(-1, *self.features.grid)
        return self.upsample(patch_scores), patch_scores.flatten(1).amax(1)

    def loss(self, patches: Tensor) -> Tensor:
        """Truncated L1 loss of the features of normal patches (N, dim), and of these with noise.

        The discriminator's batch norm sees both together, as in the official code.
        """
        adapted = self.adaptor(patches)
        noisy = adapted + self.noise * torch.randn_like(adapted)
        return truncated_l1(*self.discriminator(torch.cat([adapted, noisy])).chunk(2))


def truncated_l1(normal: Tensor, noisy: Tensor) -> Tensor:
    """What it costs that normal features get less than ``MARGIN`` (N, 1), and those with noise more than minus that."""
    return F.relu(MARGIN - normal).mean() + F.relu(MARGIN + noisy).mean()


class SimpleNet(Detector[SimpleNetConfig]):
    """SimpleNet with the official code's options and the last state of a training of fixed length."""

    title = "SimpleNet"
    source = "Liu et al., CVPR 2023"
    Config = SimpleNetConfig
    # Of 152 channels, 1536 numbers per patch would tell nothing more. The official noise suits WideResNet's features,
    # not Lite0's, whose standard deviation is about 4. With too little noise the discriminator cannot tell normal from
    # noisy patches: its loss stays at 1, what an undecided one costs, and its maps say little. This is the least power
    # of two with which the loss on MVTec AD's pill falls below a half within the 20 epochs of the demo.
    _embedded: ClassVar = {"backbone": "efficientnet_lite0", "dim": 512, "noise": 1.0}
    presets: ClassVar = {"embedded": _embedded, "demo": {**_embedded, "epochs": 20}}
    packages = ("torch", "timm")
    fused = "batch norms of the backbone; neighbourhoods and both poolings as one convolution"

    def __init__(self, config: SimpleNetConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: SimpleNetConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the backbone's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    @classmethod
    def training_length(cls, config: SimpleNetConfig) -> Epochs:
        """Passes over the training images at training scale 1."""
        return Epochs(config.epochs, config.batch_size)

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train adaptor and discriminator; ``validation`` is not used.

        Raises:
            MethodError: There are no training images.
            WeightsError: The backbone's weights cannot be had.
        """
        if len(train) == 0:
            raise MethodError("SimpleNet needs at least one training image and was given none")
        config = self.config
        backbone = Backbone(config.backbone, STRIDES, config.backbone_weights, context.weights_dir)
        module = _module(backbone, config).to(context.device)

        def compute(images: Tensor) -> list[Tensor]:
            return [module.features(images)]

        features = FrozenFeatures(compute, train, context.device, FEATURE_BYTES, progress=context.progress)
        length = optimiser_steps(self.training_length(config), len(train))
        self.training_steps = context.training_steps(length)
        self.losses = _train(module, features, config, self.training_steps, context)
        self.fitted = module.eval().requires_grad_(False)

    @classmethod
    def build_module(cls, config: SimpleNetConfig, state: Mapping[str, Tensor]) -> SimpleNetModule:
        """Backbone, adaptor and discriminator."""
        return _module(Backbone(config.backbone, STRIDES, None, Path()), config)


def _module(backbone: Backbone, config: SimpleNetConfig) -> SimpleNetModule:
    return SimpleNetModule(PatchFeatures(backbone, config.dim, config.image_size, level_dim=config.dim), config)


def _train(
    module: SimpleNetModule, features: FrozenFeatures, config: SimpleNetConfig, steps: int, context: FitContext
) -> list[tuple[int, float]]:
    optimizers = (
        torch.optim.AdamW(
            module.adaptor.parameters(), config.adaptor_learning_rate, weight_decay=config.adaptor_weight_decay
        ),
        torch.optim.Adam(
            module.discriminator.parameters(),
            config.discriminator_learning_rate,
            weight_decay=config.discriminator_weight_decay,
        ),
    )
    length = SimpleNet.training_length(config)
    draws = batches(len(features), length, torch.Generator().manual_seed(context.seed))

    def step() -> Tensor:
        (maps,) = features[next(draws).tolist()]
        loss = module.loss(rows(maps))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.detach()

    losses = run_training(step, steps, context, "training", Epoch(module, length.steps_of_pass(len(features))))
    for optimizer in optimizers:
        optimizer.zero_grad()
    return losses
