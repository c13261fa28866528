"""PatchCore's memory bank (Roth et al., CVPR 2022): a coreset of patch features, and distances to it as a map."""

import torch
from torch import Tensor, nn

from methods.common.coreset import greedy_coreset
from methods.common.nearest import NearestSearch, rows
from methods.common.patch_features import PatchFeatures
from methods.common.resampling import Resize
from methods.detector import FitContext, ImageSet, Progress

CORESET_DIM = 128
"""Numbers per patch, after a random projection, that the coreset is chosen in."""
CORESET_STARTS = 10
"""Random patches that initial distances are measured from."""
BATCH_SIZE = 16


class PatchDistances(nn.Module):
    """Patch features, their distances to a memory bank, and the map that is made of these.

    Args:
        features: Of patches, frozen.
        bank: Patch features of normal images, float32 (M, dim).
        image_size: Height and width of maps in pixels.
        neighbours: A patch's score is its mean squared distance to so many vectors of the memory bank.
        sigma: Of the Gaussian that smooths anomaly maps, in pixels.
    """

    networks = ("features.backbone.network",)
    memory_bank = ("bank",)
    bank: Tensor
    bank_squares: Tensor

    def __init__(
        self, features: PatchFeatures, bank: Tensor, image_size: tuple[int, int], neighbours: int, sigma: float
    ) -> None:
        super().__init__()
        self.features = features
        self.grid = features.grid
        self.neighbours = neighbours
        self.register_buffer("bank", bank)
        self.register_buffer("bank_squares", bank.square().sum(1))
        self.search = NearestSearch()
        self.upsample = Resize(self.grid, image_size, sigma)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, H, W) and image scores (B,) of images (B, 3, H, W), uint8 0-255 or floating 0-1."""
        return self.score(self.search(self.patches(images), self.bank, self.bank_squares, self.neighbours))

    def patches(self, images: Tensor) -> Tensor:
        """Features of all patches, (B * h * w, dim)."""
        return rows(self.features(images))

    def score(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """Turn squared distances of all patches (B * h * w, neighbours) into maps and scores.

        A map is upsampled and smoothed; the image score is the largest patch score before that.
        """
        patch_scores = distances.mean(1).view(-1, *self.grid)
        return self.upsample(patch_scores), patch_scores.flatten(1).amax(1)


@torch.no_grad()
def memory_bank(features: PatchFeatures, train: ImageSet, fraction: float, context: FitContext) -> Tensor:
    """Choose a coreset of the patch features of training images.

    Args:
        features: Of patches, frozen, on the context's device.
        train: Normal images.
        fraction: Part of the patches that is kept; at least one is.
        context: Whose seed draws the projection and the starts of the coreset.

    Returns:
        float32 (M, dim), on the CPU.
    """
    generator = torch.Generator().manual_seed(context.seed)
    patches, points = _project(features, train, generator, context)
    starts = torch.randperm(len(points), generator=generator)[:CORESET_STARTS]
    count = max(1, int(len(points) * fraction))
    picks = greedy_coreset(points, count, starts, lambda picked: context.progress(Progress("coreset", picked, count)))
    return patches[picks]


def _project(
    features: PatchFeatures, train: ImageSet, generator: torch.Generator, context: FitContext
) -> tuple[Tensor, Tensor]:
    """Features (N, dim) of all training patches and their random projections (N, CORESET_DIM), on the CPU."""
    # As the official code's random linear layer is initialised.
    limit = features.dim**-0.5
    projection = torch.empty(features.dim, CORESET_DIM).uniform_(-limit, limit, generator=generator).to(context.device)
    per_image = features.grid[0] * features.grid[1]
    patches = torch.empty(len(train) * per_image, features.dim)
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
