"""AST (Rudolph et al., WACV 2023): a student that is no flow fails to follow a teacher that is one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.batches import batches
from methods.common.coupling import AffineCoupling, permutation
from methods.common.frozen_features import FrozenFeatures
from methods.common.positional_encoding import positional_encoding
from methods.common.precision import run_network
from methods.common.training import Epoch
from methods.common.training import train as run_training
from methods.detector import Detector, FitContext, ImageSet
from methods.training_length import Epochs
from methods.weights.catalogue import backbone_spec
from methods.weights.files import WeightIdentity

STAGE = 5
"""Of the EfficientNet; its last block is number 35 of EfficientNet-B5, the official code's choice."""
CLAMP = 1.9
POSITION_CHANNELS = 32
UPSAMPLING = 8
"""Of the maps, bicubic, before the highest value is taken: from 24 to 192 in the official code."""
FEATURE_BYTES = 4 * 2**30
"""Of the training images' features, so much is kept on the device; what does not fit is computed at each step."""

Side = Annotated[int, Field(ge=64)]
Count = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class AsymmetricStudentConfig:
    """Options of AST; the defaults are those of the paper and its official code for RGB images.

    Attributes:
        backbone: An EfficientNet of ``methods.weights.catalogue.BACKBONES``.
        backbone_weights: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        image_size: Height and width in pixels.
        epochs: Passes over the training images, of the teacher first, and of the student then as many.
        batch_size: Images per step.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        kernels: Sides of the kernels in each of the teacher's coupling blocks.
        teacher_channels: Hidden channels of the teacher's couplings.
        student_channels: Of the student's residual blocks.
        student_blocks: How many residual blocks the student has.
    """

    backbone: str = "efficientnet_b5"
    backbone_weights: str = "auto"
    image_size: tuple[Side, Side] = (768, 768)
    epochs: Count = 72
    batch_size: Count = 8
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    kernels: tuple[Literal[1, 3, 5, 7], ...] = (3, 3, 3, 5)
    teacher_channels: Count = 64
    student_channels: Count = 1024
    student_blocks: Count = 4

    def __post_init__(self) -> None:
        backbone_spec(self.backbone, stages=True)


class AsymmetricStudentModule(nn.Module):
    """A frozen backbone, teacher and student, and the map of what they disagree about.

    Args:
        backbone: With one level.
        config: Options.
    """

    networks = ("backbone.network", "teacher", "student")

    def __init__(self, backbone: Backbone, config: AsymmetricStudentConfig) -> None:
        super().__init__()
        self.backbone = backbone
        shape = (backbone.channels[0], *backbone.grid(config.image_size)[0])
        self.teacher = Teacher(shape, config)
        self.student = Student(shape, config)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distance per channel of teacher and student, (B, 8 h, 8 w) bicubic, and its largest values (B,).

        Args:
            images: (B, 3, H, W), uint8 0-255 or floating 0-1.
        """
        (features,) = self.backbone(images)
        latents, _ = run_network(self.teacher, features)
        distances = (latents - run_network(self.student, features)).square().mean(1, keepdim=True)
        maps = F.interpolate(distances, scale_factor=UPSAMPLING, mode="bicubic")[:, 0]
        return maps, maps.flatten(1).amax(1)


class Teacher(nn.Module):
    """Normalising flow of features (B, C, h, w) to a standard normal of the same shape (section 3.2).

    Args:
        shape: C, h, w.
        config: Options.
    """

    encoding: Tensor

    def __init__(self, shape: tuple[int, int, int], config: AsymmetricStudentConfig) -> None:
        super().__init__()
        channels, *grid = shape
        self.register_buffer("encoding", _encoding(grid), persistent=False)
        self.couplings = nn.ModuleList(
            AffineCoupling(channels, POSITION_CHANNELS, config.teacher_channels, kernel, log_scale)
            for kernel in config.kernels
        )
        for number in range(len(config.kernels)):
            self.register_buffer(f"order_{number}", permutation(channels, number), persistent=False)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) and the logarithm of the Jacobian's determinant as a sum over positions of (B, h, w)."""
        condition = self.encoding.expand(len(features), -1, -1, -1)
        log_determinant = features.new_zeros(len(features), *features.shape[2:])
        for number, coupling in enumerate(self.couplings):
            features, more = coupling(features[:, self.get_buffer(f"order_{number}")], condition)
            log_determinant = log_determinant + more
        return features, log_determinant


class Student(nn.Module):
    """Convolutional network from features (B, C, h, w) to the teacher's latents of the same shape (section 3.3).

    Args:
        shape: C, h, w.
        config: Options.
    """

    encoding: Tensor

    def __init__(self, shape: tuple[int, int, int], config: AsymmetricStudentConfig) -> None:
        super().__init__()
        channels, *grid = shape
        width = config.student_channels
        self.register_buffer("encoding", _encoding(grid), persistent=False)
        self.layers = nn.Sequential(
            nn.Conv2d(channels + POSITION_CHANNELS, width, 3, padding=1),
            nn.LeakyReLU(),
            *(_Residual(width) for _ in range(config.student_blocks)),
            nn.Conv2d(width, channels, 3, padding=1),
        )
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, features: Tensor) -> Tensor:
        """What it takes the latents of features (B, C, h, w) for."""
        condition = self.encoding.expand(len(features), -1, -1, -1)
        latents: Tensor = self.layers(torch.cat([features, condition], dim=1))
        return latents


class _Residual(nn.Module):
    """Two convolutions, each normalised and activated, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.LeakyReLU())
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        residual: Tensor = self.layers(features)
        return features + residual


def log_scale(values: Tensor) -> Tensor:
    """Logarithm of a coupling's scale, between -1.9 and 1.9 but for a rounded factor."""
    return CLAMP * 0.636 * torch.atan(values / CLAMP)


def negative_log_likelihood(latents: Tensor, log_determinant: Tensor) -> Tensor:
    """Of what a :class:`Teacher` returns, but for a constant: mean over images and positions (equation 4)."""
    return (0.5 * latents.square().sum(1) - log_determinant).mean()


class AsymmetricStudentTeacher(Detector[AsymmetricStudentConfig]):
    """AST on RGB images, with a fixed number of epochs and the state after the last.

    An epoch leaves out images that make no full batch, as the official code's does; a training set smaller than a
    batch, of which nothing would be left, is one batch.
    """

    title = "AST"
    source = "Rudolph et al., WACV 2023"
    Config = AsymmetricStudentConfig
    # The student is as much wider than the features, 112 channels of theirs, as the paper's than its 304.
    _embedded: ClassVar = {"backbone": "efficientnet_lite0", "image_size": (256, 256), "student_channels": 384}
    presets: ClassVar = {"embedded": _embedded, "demo": {**_embedded, "epochs": 6}}
    packages = ("torch", "timm")
    fused = "batch norms"

    def __init__(self, config: AsymmetricStudentConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: AsymmetricStudentConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the backbone's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    @classmethod
    def training_length(cls, config: AsymmetricStudentConfig) -> Epochs:
        """Passes over the training images at training scale 1, as many of the student as of the teacher."""
        return Epochs(config.epochs, config.batch_size, drop_last=True, networks=2)

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train the teacher, then the student; ``validation`` is not used.

        Raises:
            WeightsError: The backbone's weights cannot be had.
        """
        config = self.config
        backbone = Backbone(config.backbone, (STAGE,), config.backbone_weights, context.weights_dir, stages=True)
        module = AsymmetricStudentModule(backbone, config).to(context.device)
        features = FrozenFeatures(module.backbone, train, context.device, FEATURE_BYTES, progress=context.progress)
        length = self.training_length(config)
        draws = batches(len(train), length, torch.Generator().manual_seed(context.seed))

        def batch() -> Tensor:
            (level,) = features[next(draws).tolist()]
            return level

        def of_teacher() -> Tensor:
            return negative_log_likelihood(*module.teacher(batch()))

        def of_student() -> Tensor:
            drawn = batch()
            with torch.no_grad():
                latents, _ = module.teacher(drawn)
            return F.mse_loss(module.student(drawn), latents)

        self.training_steps = context.training_steps(length.steps(len(train)))
        halfway = math.ceil(self.training_steps / 2)
        self.losses = _train(module.teacher, of_teacher, halfway, config, context, "teacher")
        epoch = Epoch(module, length.steps_of_pass(len(train)))
        rest = self.training_steps - halfway
        of_the_student = _train(module.student, of_student, rest, config, context, "student", epoch)
        self.losses += [(halfway + step, loss) for step, loss in of_the_student]
        self.fitted = module.eval().requires_grad_(False)

    @classmethod
    def build_module(cls, config: AsymmetricStudentConfig, state: Mapping[str, Tensor]) -> AsymmetricStudentModule:
        """Backbone, teacher and student; the teacher's permutations are part of the state."""
        return AsymmetricStudentModule(Backbone(config.backbone, (STAGE,), None, Path(), stages=True), config)


def _train(
    network: nn.Module,
    loss_of_batch: Callable[[], Tensor],
    steps: int,
    config: AsymmetricStudentConfig,
    context: FitContext,
    stage: str,
    epoch: Epoch | None = None,
) -> list[tuple[int, float]]:
    """Train one of the networks; return its losses, (step, loss)."""
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)

    def step() -> Tensor:
        loss = loss_of_batch()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    network.train()
    losses = run_training(step, steps, context, stage, epoch)
    optimizer.zero_grad()
    return losses


def _encoding(grid: list[int]) -> Tensor:
    height, width = grid
    return positional_encoding(POSITION_CHANNELS, (height, width))[None]
