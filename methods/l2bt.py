"""L2BT (Costanzino et al., IEEE Access 2025): what one layer of a network tells of another, learnt on normal images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.batches import batches
from methods.common.frozen_features import FrozenFeatures
from methods.common.nearest import rows
from methods.common.precision import run_network
from methods.common.resampling import Separable, bilinear_matrix, box_matrix
from methods.common.training import train as run_training
from methods.config import unknown
from methods.detector import Detector, FitContext, ImageSet
from methods.errors import MethodError
from methods.training_length import Epochs, optimiser_steps
from methods.weights.catalogue import BACKBONES, backbone_spec
from methods.weights.files import WeightIdentity

TOP_FRACTION = 0.001
"""Of a map's pixels, the highest ones, whose mean is the image score."""
SMOOTHING = (5,) * 5 + (7,) * 3
"""Sides of the mean filters that smooth a map one after another, in pixels: nearly a Gaussian of 4.7 pixels, by which
the paper says that it smooths."""
FEATURE_BYTES = 4 * 2**30
"""Of the training images' features, so much is kept on the device; what does not fit is computed at each step."""

Side = Annotated[int, Field(ge=32)]
Count = Annotated[int, Field(gt=0)]
Level = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class L2btConfig:
    """Options of L2BT; the defaults are those of its paper, and of its public code where the paper says nothing.

    Attributes:
        backbone: A transformer of ``methods.weights.catalogue.BACKBONES``, or an EfficientNet. The paper says
            ViT-B/14 of DINOv2; the public code takes the one with registers.
        backbone_weights: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        levels: Of the shallower and the deeper features, counted from 0: a transformer's blocks, after which its last
            normalisation is applied to either, or an EfficientNet's stages, two of one stride.
        image_size: Height and width in pixels, which a transformer's patches divide.
        hidden_dim: Units of either hidden layer of a student.
        epochs: Passes over the training images.
        batch_size: Images per step; the public code's.
        learning_rate: Of Adam; 1e-4 in the public code.
        loss: Distance of patches from their prediction that training lowers, ``cosine`` or ``euclidean`` (Table 8).
        distance: The one that maps show. ``normalised``: Euclidean after both are scaled to length 1, as the public
            code does. ``euclidean``: without that, as equation 3 reads, though the cosine leaves the length of a
            prediction free. ``cosine``: Table 8.
        fusion: ``product`` or ``sum`` of both maps, or only what the ``forward`` or the ``backward`` student misses
            (Tables 7 and 9).
    """

    backbone: str = "vit_base_patch14_reg4_dinov2"
    backbone_weights: str = "auto"
    levels: tuple[Level, Level] = (7, 11)
    image_size: tuple[Side, Side] = (1036, 1036)
    hidden_dim: Count = 768
    epochs: Count = 50
    batch_size: Count = 4
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    loss: Literal["cosine", "euclidean"] = "cosine"
    distance: Literal["normalised", "euclidean", "cosine"] = "normalised"
    fusion: Literal["product", "sum", "forward", "backward"] = "product"

    def __post_init__(self) -> None:
        allowed = [name for name, spec in BACKBONES.items() if spec.stages or spec.kind == "transformer"]
        if self.backbone not in allowed:
            raise unknown("backbone of L2BT", self.backbone, allowed)


class L2btModule(nn.Module):
    """A frozen backbone, two students, and the map of what they do not predict.

    Args:
        backbone: With two levels, the shallower one first.
        config: Options.

    Raises:
        MethodError: The levels differ in height or width.
    """

    networks = ("backbone.network", "forward_student", "backward_student")

    def __init__(self, backbone: Backbone, config: L2btConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.grid, deeper = backbone.grid(config.image_size)
        if self.grid != deeper:
            raise MethodError(
                f"L2BT maps each position of one level to the same of another, but {config.backbone} has "
                f"{self.grid[0]}x{self.grid[1]} and {deeper[0]}x{deeper[1]} at levels {config.levels}\n"
                "  Allowed: two blocks of a transformer, or stages of one stride, such as 3 and 4 of an EfficientNet."
            )
        shallow, deep = backbone.channels
        self.forward_student = student(shallow, config.hidden_dim, deep)
        self.backward_student = student(deep, config.hidden_dim, shallow)
        self.upsample = Separable(
            *(
                _smoothing(fine) @ bilinear_matrix(coarse, fine)
                for coarse, fine in zip(self.grid, config.image_size, strict=True)
            )
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, H, W) and image scores (B,) of images (B, 3, H, W), uint8 0-255 or floating 0-1.

        A map is upsampled and smoothed; the image score is the mean of its highest values (algorithm 2).
        """
        shallow, deep = (rows(level) for level in self.backbone(images))
        maps = self.upsample(self._differences(shallow, deep).view(-1, *self.grid))
        flat = maps.flatten(1)
        highest = flat.topk(max(1, round(TOP_FRACTION * flat.shape[1]))).values
        return maps, highest.mean(1)

    def loss(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """Mean distances of patches' features (N, C) and (N, D) from their predictions, added (equation 2)."""
        of_shallow = distances(self.backward_student(deep), shallow, self.config.loss)
        of_deep = distances(self.forward_student(shallow), deep, self.config.loss)
        return of_shallow.mean() + of_deep.mean()

    def _differences(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """How far features (N, C) and (N, D) are from what is predicted of them, (N,) (equation 3)."""
        fusion, distance = self.config.fusion, self.config.distance
        parts = []
        if fusion != "forward":
            parts.append(distances(run_network(self.backward_student, deep), shallow, distance))
        if fusion != "backward":
            parts.append(distances(run_network(self.forward_student, shallow), deep, distance))
        both = torch.stack(parts)
        return both.sum(0) if fusion == "sum" else both.prod(0)


def student(channels: int, hidden: int, predicted: int) -> nn.Sequential:
    """Perceptron from features of a patch, (N, channels), to those of another level, (N, predicted)."""
    return nn.Sequential(
        nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, predicted)
    )


def distances(predicted: Tensor, features: Tensor, kind: str) -> Tensor:
    """Distances (N,) of rows (N, C): ``cosine``, ``euclidean``, or this ``normalised``, between rows of length 1."""
    if kind == "cosine":
        return 1 - F.cosine_similarity(predicted, features)
    if kind == "normalised":
        predicted, features = F.normalize(predicted), F.normalize(features)
    differences: Tensor = torch.linalg.vector_norm(predicted - features, dim=1)
    return differences


def _smoothing(size: int) -> Tensor:
    matrix = torch.eye(size, dtype=torch.float64)
    for side in SMOOTHING:
        matrix = box_matrix(size, side) @ matrix
    return matrix


class L2bt(Detector[L2btConfig]):
    """L2BT on images resized as those of every other method.

    The paper pads images to squares by repeating their edges, resizes them bicubically, and smooths maps at the size
    of the original image, without the padding. Here the whole image fills the input, bilinearly, and maps are smoothed
    at the size of the input.
    """

    title = "L2BT"
    source = "Costanzino et al., IEEE Access 2025"
    Config = L2btConfig
    # The two stages of stride 16; students as wide as the wider of these, as the paper's are as wide as its blocks.
    presets: ClassVar = {
        "embedded": {
            "backbone": "efficientnet_lite0",
            "levels": (3, 4),
            "image_size": (512, 512),
            "hidden_dim": 112,
        }
    }
    packages = ("torch", "timm")
    fused = "batch norms of a convolutional backbone"

    def __init__(self, config: L2btConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: L2btConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the backbone's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    @classmethod
    def training_length(cls, config: L2btConfig) -> Epochs:
        """Passes over the training images at training scale 1."""
        return Epochs(config.epochs, config.batch_size)

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train both students together; ``validation`` is not used.

        Raises:
            MethodError: There are no training images, or the levels or the image size do not suit the backbone.
            WeightsError: The backbone's weights cannot be had.
        """
        if len(train) == 0:
            raise MethodError("L2BT needs at least one training image and was given none")
        config = self.config
        module = _module(config, config.backbone_weights, context.weights_dir).to(context.device)
        features = FrozenFeatures(
            module.backbone,
            train,
            context.device,
            FEATURE_BYTES,
            batch_size=config.batch_size,
            progress=context.progress,
        )
        length = self.training_length(config)
        draws = batches(len(train), length, torch.Generator().manual_seed(context.seed))
        students = [*module.forward_student.parameters(), *module.backward_student.parameters()]
        optimizer = torch.optim.Adam(students, config.learning_rate)

        def step() -> Tensor:
            shallow, deep = features[next(draws).tolist()]
            loss = module.loss(rows(shallow), rows(deep))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        self.training_steps = context.training_steps(optimiser_steps(length, len(train)))
        self.losses = run_training(step, self.training_steps, context, "training")
        optimizer.zero_grad()
        self.fitted = module.eval().requires_grad_(False)

    @classmethod
    def build_module(cls, config: L2btConfig, state: Mapping[str, Tensor]) -> L2btModule:
        """Backbone and students."""
        return _module(config, None, Path())


def _module(config: L2btConfig, weights: str | None, weights_dir: Path) -> L2btModule:
    stages = backbone_spec(config.backbone).kind == "convolutional"
    backbone = Backbone(config.backbone, config.levels, weights, weights_dir, final_norm=True, stages=stages)
    return L2btModule(backbone, config)
