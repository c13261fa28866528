"""RD++ (Tien et al., CVPR 2023): a decoder fails to restore what projections have been taught to leave out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.batches import accumulated_batches
from methods.common.frozen_features import FrozenFeatures
from methods.common.noise import fractal_noise, random_order
from methods.common.precision import run_network
from methods.common.resampling import Resize
from methods.common.training import Epoch
from methods.common.training import train as run_training
from methods.detector import Detector, FitContext, ImageSet
from methods.rdpp import losses
from methods.rdpp.networks import Reconstruction
from methods.training_length import Epochs
from methods.weights.catalogue import backbone_spec
from methods.weights.files import WeightIdentity

STRIDES = (4, 8, 16)
SIGMA = 4.0
"""Of the filter that smooths the maps, in pixels."""
BETAS = (0.5, 0.999)
OCTAVES, PERSISTENCE = 6, 0.6
LEAST_NOISE, NOISE_SHARE = 10, 8
"""Noise is at least so many pixels high and wide, and less than the image divided by so much."""
FEATURE_BYTES = 4 * 2**30
"""Of the training images' features, so much is kept on the device; what does not fit is computed at each step."""

Side = Annotated[int, Field(ge=64, multiple_of=32)]
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class RdppConfig:
    """Options of RD++; the defaults are those of its official code, but for its epochs.

    Attributes:
        backbone: A convolutional one of ``methods.weights.catalogue.BACKBONES``. The decoder mirrors its channels.
        backbone_weights: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        image_size: Height and width in pixels, multiples of 32.
        epochs: Passes over the training images. The official code has another number for each category of MVTec AD,
            10 to 300, and takes the best of them by the test images; 200 are those of reverse distillation.
        batch_size: Images per batch.
        accumulated_batches: Batches whose gradients are summed for an optimiser step.
        projection_learning_rate: Of Adam, for the projections.
        learning_rate: Of Adam, for bottleneck and decoder.
        projection_weight: Of the projections' losses, relative to that of the distillation.
        noise: Amplitude of the noise, relative to the range of pixel values.
    """

    backbone: str = "wide_resnet50_2"
    backbone_weights: str = "auto"
    image_size: tuple[Side, Side] = (256, 256)
    epochs: Count = 200
    batch_size: Count = 16
    accumulated_batches: Count = 2
    projection_learning_rate: Rate = 1e-3
    learning_rate: Rate = 5e-3
    projection_weight: Annotated[float, Field(ge=0)] = 0.2
    noise: Annotated[float, Field(ge=0)] = 0.2

    def __post_init__(self) -> None:
        backbone_spec(self.backbone, "convolutional")


class RdppModule(nn.Module):
    """A frozen encoder, what restores its levels, and the map of how far they are apart.

    Args:
        backbone: With the levels of ``STRIDES``.
        config: Options.
    """

    networks = ("backbone.network", "reconstruction")

    def __init__(self, backbone: Backbone, config: RdppConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.reconstruction = Reconstruction(backbone.channels)
        self.upsampling = nn.ModuleList(
            Resize(grid, config.image_size, SIGMA, align_corners=True) for grid in backbone.grid(config.image_size)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over levels of cosine distances, smoothed, (B, H, W), from 0 to 6, and its largest values (B,).

        Args:
            images: (B, 3, H, W), uint8 0-255 or floating 0-1.
        """
        encoded = self.backbone(images)
        decoded = run_network(self.reconstruction, encoded)
        distances = [1 - F.cosine_similarity(a, b) for a, b in zip(encoded, decoded, strict=True)]
        maps = torch.stack([up(level) for up, level in zip(self.upsampling, distances, strict=True)]).sum(0)
        return maps, maps.flatten(1).amax(1)


class Rdpp(Detector[RdppConfig]):
    """RD++ with one number of epochs for all scenarios, and the state after the last."""

    title = "RD++"
    source = "Tien et al., CVPR 2023"
    Config = RdppConfig
    _embedded: ClassVar = {"backbone": "efficientnet_lite0"}
    # With the larger batches so few images make one step a pass, too few for the moving averages of the batch norms.
    _demo: ClassVar = {**_embedded, "epochs": 20, "batch_size": 8, "accumulated_batches": 1}
    presets: ClassVar = {"embedded": _embedded, "demo": _demo}
    packages = ("torch", "timm")
    fused = "batch norms"

    def __init__(self, config: RdppConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: RdppConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the encoder's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    @classmethod
    def training_length(cls, config: RdppConfig) -> Epochs:
        """Passes over the training images at training scale 1."""
        return Epochs(config.epochs, config.batch_size, accumulated_batches=config.accumulated_batches)

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train projections, bottleneck and decoder; ``validation`` is not used.

        Raises:
            WeightsError: The encoder's weights cannot be had.
        """
        backbone = Backbone(self.config.backbone, STRIDES, self.config.backbone_weights, context.weights_dir)
        module = RdppModule(backbone, self.config).to(context.device)
        self.training_steps = context.training_steps(self.training_length(self.config).steps(len(train)))
        self.losses = _train(module, train, self.config, self.training_steps, context)
        self.fitted = module.eval().requires_grad_(False)

    @classmethod
    def build_module(cls, config: RdppConfig, state: Mapping[str, Tensor]) -> RdppModule:
        """Encoder, projections, bottleneck and decoder."""
        return RdppModule(Backbone(config.backbone, STRIDES, None, Path()), config)


def _train(
    module: RdppModule, images: ImageSet, config: RdppConfig, steps: int, context: FitContext
) -> list[tuple[int, float]]:
    reconstruction, generator = module.reconstruction, torch.Generator().manual_seed(context.seed)
    optimizer = torch.optim.Adam(
        [
            {"params": reconstruction.projections.parameters(), "lr": config.projection_learning_rate},
            {"params": reconstruction.decoder.parameters(), "lr": config.learning_rate},
        ],
        betas=BETAS,
    )
    features = FrozenFeatures(module.backbone, images, context.device, FEATURE_BYTES, progress=context.progress)
    noise = RectangularNoise(config.image_size, config.noise, generator)
    length = Rdpp.training_length(config)
    accumulated = accumulated_batches(len(images), length, generator)

    def loss_of(chosen: list[int]) -> Tensor:
        encoded = features[chosen]
        with torch.no_grad():
            noisy = module.backbone(noise.add(images[chosen]).to(context.device, non_blocking=True))
        projected, projected_noisy = (reconstruction.projections(levels) for levels in (encoded, noisy))
        of_projection = losses.projection(noisy, projected_noisy, projected, generator)
        distilled = losses.distillation(encoded, reconstruction.decoder(projected))
        return distilled + config.projection_weight * of_projection

    def step() -> Tensor:
        optimizer.zero_grad()
        recorded = []
        for chosen in next(accumulated):
            loss = loss_of(chosen.tolist())
            loss.backward()
            recorded.append(loss.detach())
        optimizer.step()
        return torch.stack(recorded).mean()

    reconstruction.train()
    recorded = run_training(step, steps, context, "training", Epoch(module, length.steps_of_pass(len(images))))
    optimizer.zero_grad()
    return recorded


class RectangularNoise:
    """Adds simplex noise to a rectangle of each image.

    As in the official code, it is one field of noise, of which each rectangle shows the upper left corner.

    Args:
        size: Height and width of the images.
        amplitude: Relative to the range of pixel values.
        generator: Draws the field, and the rectangles, on the CPU.
    """

    def __init__(self, size: tuple[int, int], amplitude: float, generator: torch.Generator) -> None:
        height, width = (side // NOISE_SHARE for side in size)
        order = random_order(generator)
        self.field = amplitude * fractal_noise((3, height, width), order, octaves=OCTAVES, persistence=PERSISTENCE)
        self._generator = generator

    def add(self, images: Tensor) -> Tensor:
        """Make of uint8 images (B, 3, H, W) floating ones, 0-1 but for the noise, which may leave that range."""
        noisy = images / 255
        for image in noisy:
            (top, height), (left, width) = (self._span(side) for side in image.shape[1:])
            image[:, top : top + height, left : left + width] += self.field[:, :height, :width]
        return noisy

    def _span(self, side: int) -> tuple[int, int]:
        """Where a rectangle begins, and how long it is, along a side of an image."""
        end = side // NOISE_SHARE
        length = self._draw(min(LEAST_NOISE, end - 1), end)
        return self._draw(1, side - length), length

    def _draw(self, low: int, high: int) -> int:
        """A random integer from ``low`` to ``high - 1``."""
        return int(torch.randint(low, high, (), generator=self._generator))
