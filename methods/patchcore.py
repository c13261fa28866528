"""PatchCore (Roth et al., CVPR 2022): distance to the nearest normal patch in a coreset of patch features."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.coreset import greedy_coreset
from methods.common.nearest import FaissSearch, Search, check_faiss, nearest_distances, rows
from methods.common.patch_features import PatchFeatures
from methods.common.resampling import Resize
from methods.detector import Detector, FitContext, ImageSet, Prediction, Progress
from methods.weights.catalogue import backbone_spec
from methods.weights.files import WeightIdentity
from methods.weights.states import load_fitted

STRIDES = (8, 16)
CORESET_DIM = 128
"""Numbers per patch, after a random projection, that the coreset is chosen in."""
CORESET_STARTS = 10
"""Random patches that initial distances are measured from."""
BATCH_SIZE = 16


@dataclass(frozen=True)
class PatchCoreConfig:
    """Options of PatchCore; the defaults are those of the EfficientAD paper's comparison (its appendix B).

    Attributes:
        backbone: A convolutional one of ``methods.weights.catalogue.BACKBONES``.
        backbone_weights: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        image_size: Height and width in pixels.
        dim: Numbers per patch, even.
        coreset_fraction: Part of the training patches kept as memory bank.
        neighbours: A patch's score is its mean squared distance to so many vectors of the memory bank.
        sigma: Of the Gaussian that smooths anomaly maps, in pixels of the input.
        search: ``torch``, or ``faiss`` if it is installed; they find the same distances up to float32 rounding.
    """

    backbone: str = "wide_resnet101_2"
    backbone_weights: str = "auto"
    image_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = (224, 224)
    dim: Annotated[int, Field(gt=0, multiple_of=2)] = 1024
    coreset_fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    neighbours: Annotated[int, Field(gt=0)] = 1
    sigma: Annotated[float, Field(gt=0)] = 4.0
    search: Search = "torch"

    def __post_init__(self) -> None:
        backbone_spec(self.backbone, "convolutional")


class PatchCoreModule(nn.Module):
    """Patch features, their distances to the memory bank, and the map that is made of these.

    Args:
        features: Of patches, frozen.
        bank: Patch features of normal images, float32 (M, dim).
        config: Options.
    """

    networks = ("features.backbone.network",)
    bank: Tensor
    bank_squares: Tensor

    def __init__(self, features: PatchFeatures, bank: Tensor, config: PatchCoreConfig) -> None:
        super().__init__()
        self.features = features
        self.grid = features.grid
        self.neighbours = config.neighbours
        self.register_buffer("bank", bank)
        self.register_buffer("bank_squares", bank.square().sum(1))
        self.upsample = Resize(self.grid, config.image_size, config.sigma)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, H, W) and image scores (B,) of images (B, 3, H, W), uint8 0-255 or floating 0-1."""
        return self.score(nearest_distances(self.patches(images), self.bank, self.bank_squares, self.neighbours))

    def patches(self, images: Tensor) -> Tensor:
        """Features of all patches, (B * h * w, dim)."""
        return rows(self.features(images))

    def score(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Turn squared distances of all patches (B * h * w, neighbours) into maps and scores.

        A map is upsampled and smoothed; the image score is the largest patch score before that.
        """
        patch_scores = distances.mean(1).view(-1, *self.grid)
        return self.upsample(patch_scores), patch_scores.flatten(1).amax(1)


class PatchCore(Detector[PatchCoreConfig]):
    """PatchCore with the official code's feature pipeline and scores."""

    title = "PatchCore"
    source = "Roth et al., CVPR 2022"
    Config = PatchCoreConfig
    presets: ClassVar = {"embedded": {"backbone": "efficientnet_lite0"}}
    packages = ("torch", "timm", "numba")
    without_effect = frozenset({"search"})
    fused = "batch norms; neighbourhoods and both poolings as one convolution"

    def __init__(self, config: PatchCoreConfig) -> None:
        self.config = config
        self.input_size = config.image_size
        self._module: PatchCoreModule | None = None
        self._faiss: FaissSearch | None = None

    @classmethod
    def weights(cls, config: PatchCoreConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the backbone's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Fill the memory bank; ``validation`` is not used.

        Raises:
            MethodError: ``search`` is ``faiss`` and that cannot search here.
            WeightsError: The backbone's weights cannot be had.
        """
        if self.config.search == "faiss":
            check_faiss(context.device)
        backbone = Backbone(self.config.backbone, STRIDES, self.config.backbone_weights, context.weights_dir)
        features = PatchFeatures(backbone, self.config.dim, self.config.image_size).to(context.device)
        bank = memory_bank(features, train, self.config, context)
        self._module = PatchCoreModule(features, bank, self.config).to(context.device).eval()
        self._faiss = None
        self.implementation = {"search": self.config.search}

    def module(self) -> PatchCoreModule:
        """The fitted module; it searches by torch, whatever the option ``search`` says."""
        if self._module is None:
            raise RuntimeError("PatchCore has not been fitted")
        return self._module

    @classmethod
    def restore(cls, config: PatchCoreConfig, state: Mapping[str, Tensor]) -> "PatchCore":
        """Rebuild a fitted PatchCore on the CPU from its module's state."""
        backbone = Backbone(config.backbone, STRIDES, None, Path())
        features = PatchFeatures(backbone, config.dim, config.image_size)
        size = len(state["bank"]) if "bank" in state else 0
        module = PatchCoreModule(features, torch.empty(size, config.dim), config)
        load_fitted(module, state, cls.title)
        detector = cls(config)
        detector._module = module.eval()
        return detector

    def predict(self, images: Tensor) -> Prediction:
        """Anomaly maps and image scores of images on any device, by the search that the options name."""
        if self.config.search == "torch":
            return super().predict(images)
        module = self.module()
        if self._faiss is None:
            self._faiss = FaissSearch(module.bank)
        with torch.inference_mode():
            patches = module.patches(images.to(module.bank.device))
            return Prediction(*module.score(self._faiss(patches, self.config.neighbours)))


@torch.no_grad()
def memory_bank(features: PatchFeatures, train: ImageSet, config: PatchCoreConfig, context: FitContext) -> Tensor:
    """Choose a coreset of the patch features of training images.

    Args:
        features: Of patches, frozen, on the context's device.
        train: Normal images.
        config: Options.
        context: Whose seed draws the projection and the starts of the coreset.

    Returns:
        float32 (M, dim), on the CPU.
    """
    generator = torch.Generator().manual_seed(context.seed)
    patches, points = _project(features, train, config.dim, generator, context)
    starts = torch.randperm(len(points), generator=generator)[:CORESET_STARTS]
    count = max(1, int(len(points) * config.coreset_fraction))
    picks = greedy_coreset(points, count, starts, lambda picked: context.progress(Progress("coreset", picked, count)))
    return patches[picks]


def _project(
    features: PatchFeatures, train: ImageSet, dim: int, generator: torch.Generator, context: FitContext
) -> tuple[Tensor, Tensor]:
    """Features (N, dim) of all training patches and their random projections (N, CORESET_DIM), on the CPU."""
    # As the official code's random linear layer is initialised.
    limit = dim**-0.5
    projection = torch.empty(dim, CORESET_DIM).uniform_(-limit, limit, generator=generator).to(context.device)
    per_image = features.grid[0] * features.grid[1]
    patches = torch.empty(len(train) * per_image, dim)
    points = torch.empty(len(patches), CORESET_DIM)
    done = 0
    for images in train.batches(BATCH_SIZE):
        batch = rows(features(images.to(context.device)))
        part = slice(done * per_image, done * per_image + len(batch))
        patches[part] = batch
        points[part] = batch @ projection
        done += len(images)
        context.progress(Progress("features", done, len(train)))
    return patches, points
