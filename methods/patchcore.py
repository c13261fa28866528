"""PatchCore (Roth et al., CVPR 2022): distance to the nearest normal patch in a coreset of patch features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity, backbone_spec
from methods.common.coreset import greedy_coreset
from methods.common.nearest import NearestNeighbours, Search
from methods.common.patch_features import PatchFeatures
from methods.detector import Detector, FitContext, ImageSet, Prediction, Progress
from methods.registry import changed_options
from methods.weights.files import WeightIdentity

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
        backbone: A key of ``methods.common.backbones.BACKBONES``.
        backbone_weights: ``auto``, ``random`` or the path of a state dict.
        image_size: Height and width in pixels.
        dim: Numbers per patch, even.
        coreset_fraction: Part of the training patches kept as memory bank.
        neighbours: A patch's score is its mean squared distance to so many vectors of the memory bank.
        sigma: Of the Gaussian that smooths anomaly maps, in pixels of the input.
        search: ``faiss``, ``torch``, or ``auto``; they find the same distances.
    """

    backbone: str = "wide_resnet101_2"
    backbone_weights: str = "auto"
    image_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = (224, 224)
    dim: Annotated[int, Field(gt=0, multiple_of=2)] = 1024
    coreset_fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    neighbours: Annotated[int, Field(gt=0)] = 1
    sigma: Annotated[float, Field(gt=0)] = 4.0
    search: Search = "auto"

    def __post_init__(self) -> None:
        backbone_spec(self.backbone)


class PatchCore(Detector):
    """PatchCore with the official code's feature pipeline and scores."""

    title = "PatchCore"
    source = "Roth et al., CVPR 2022"
    Config = PatchCoreConfig
    presets: ClassVar = {"embedded": {"backbone": "efficientnet_lite0"}}
    uses_validation = False

    @classmethod
    def weights(cls, config: PatchCoreConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the backbone's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    @classmethod
    def deviations(cls, config: PatchCoreConfig, context: FitContext) -> list[str]:
        """Options that differ from the defaults; the kind of search changes nothing, a training length it has not."""
        return changed_options(config, "search")

    def __init__(self, config: PatchCoreConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Fill the memory bank; ``validation`` is not used."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(context.seed)  # for random weights
            backbone = Backbone(self.config.backbone, STRIDES, self.config.backbone_weights, context.weights_dir)
            self.features: nn.Module = PatchFeatures(backbone, self.config.dim).to(context.device)
        self.memorise(train, context)

    def memorise(self, train: ImageSet, context: FitContext) -> None:
        """Fill the memory bank with features of training patches by ``self.features``."""
        self.device = context.device
        self.grid = self._describe(train[:1])[1]
        self.upsample = [
            _upsampling_matrix(coarse, fine, self.config.sigma).to(self.device)
            for coarse, fine in zip(self.grid, self.input_size, strict=True)
        ]
        generator = torch.Generator().manual_seed(context.seed)
        patches, points = self._collect(train, generator, context)
        starts = torch.randperm(len(points), generator=generator)[:CORESET_STARTS]
        count = max(1, int(len(points) * self.config.coreset_fraction))
        picks = greedy_coreset(
            points, count, starts, lambda picked: context.progress(Progress("coreset", picked, count))
        )
        self.nearest = NearestNeighbours(patches[picks].to(self.device), self.config.search)

    def _collect(self, train: ImageSet, generator: torch.Generator, context: FitContext) -> tuple[Tensor, Tensor]:
        """Features (N, dim) of all training patches and their random projections (N, CORESET_DIM), on the CPU."""
        per_image = self.grid[0] * self.grid[1]
        # As the official code's random linear layer is initialised.
        limit = self.config.dim**-0.5
        projection = torch.empty(self.config.dim, CORESET_DIM).uniform_(-limit, limit, generator=generator)
        projection = projection.to(self.device)
        patches = torch.empty(len(train) * per_image, self.config.dim)
        points = torch.empty(len(patches), CORESET_DIM)
        done = 0
        for images in train.batches(BATCH_SIZE):
            rows, _ = self._describe(images)
            part = slice(done * per_image, done * per_image + len(rows))
            patches[part] = rows
            points[part] = rows @ projection
            done += len(images)
            context.progress(Progress("features", done, len(train)))
        return patches, points

    @torch.no_grad()
    def _describe(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch features (B * h * w, dim) of uint8 images (B, 3, H, W), and the grid (h, w)."""
        features = self.features(images.to(self.device))
        return features.permute(0, 2, 3, 1).flatten(0, 2), (features.shape[2], features.shape[3])

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """Anomaly maps, and as image scores the largest patch scores, before upsampling and smoothing."""
        distances = self.nearest(self._describe(images)[0], self.config.neighbours)
        patch_scores = distances.mean(1).view(-1, *self.grid)
        rows, columns = self.upsample
        return Prediction(rows @ patch_scores @ columns.T, patch_scores.flatten(1).amax(1))

    def anomaly_map(self, images: Tensor) -> Tensor:
        """Patch scores, upsampled to the images' size (B, H, W) and smoothed."""
        return self.predict(images).maps


def _upsampling_matrix(coarse: int, fine: int, sigma: float) -> Tensor:
    """Bilinear upsampling followed by a Gaussian filter, along one axis, as a matrix (fine, coarse).

    Both are linear and separable, so a map is upsampled and smoothed by two small matrix products. The filter is
    ``scipy.ndimage.gaussian_filter``'s: cut at four sigma, the map mirrored at its edges.
    """
    upsampling = F.interpolate(torch.eye(coarse).double()[None], fine, mode="linear")[0].T
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma).square())
    position = (torch.arange(fine)[:, None] + offsets) % (2 * fine)
    mirrored = torch.minimum(position, 2 * fine - 1 - position)
    smoothing = torch.zeros(fine, fine).double()
    smoothing.scatter_add_(1, mirrored, (kernel / kernel.sum()).expand(fine, -1))
    return (smoothing @ upsampling).float()
