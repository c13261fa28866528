"""What RD++ minimises (section 3.2 and 3.3, and its official code)."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.common.sinkhorn import sinkhorn_divergence

RECONSTRUCTION_WEIGHT = 0.01
CONTRAST_WEIGHT = 0.1
MARGIN = 0.5
BLUR, SCALING, DIAMETER = 0.05, 0.95, 1e7

Levels = Sequence[Tensor]
"""Feature maps (B, C, h, w), the finest first."""


def distillation(encoded: Levels, decoded: Levels) -> Tensor:
    """Cosine distance of what is decoded from what was encoded, of whole levels: mean over images, sum over levels."""
    return _sum(lambda a, b: (1 - F.cosine_similarity(a.flatten(1), b.flatten(1))).mean(), encoded, decoded)


def projection(noisy: Levels, projected_noisy: Levels, projected: Levels, generator: torch.Generator) -> Tensor:
    """Weighted mean of the projections' losses.

    Args:
        noisy: Encoded images with noise.
        projected_noisy: Projections of these.
        projected: Projections of the encoded images without noise.
        generator: Draws the order in which the optimal transport meets the images, on the CPU.
    """
    total = (
        transport(projected, generator)
        + RECONSTRUCTION_WEIGHT * reconstruction(projected_noisy, projected)
        + CONTRAST_WEIGHT * contrast(noisy, projected)
    )
    return total / (1 + RECONSTRUCTION_WEIGHT + CONTRAST_WEIGHT)


def transport(projected: Levels, generator: torch.Generator) -> Tensor:
    """Self-supervised optimal transport: from the images of a batch to the same ones shuffled, sum over levels.

    So the official code has it. An image is one point, its level after a softmax over all channels and positions, and
    the order of points does not matter to a cloud: but for rounding, value and gradient are zero.
    """
    order = torch.randperm(len(projected[0]), generator=generator)
    clouds = [level.flatten(1).softmax(1) for level in projected]
    order = order.to(clouds[0].device)
    pairs = [(cloud, cloud[order]) for cloud in clouds]
    return sinkhorn_divergence(pairs, blur=BLUR, scaling=SCALING, diameter=DIAMETER).sum()


def reconstruction(projected_noisy: Levels, projected: Levels) -> Tensor:
    """Cosine distance of projections with noise from those without: mean over positions, sum over levels."""
    return _sum(lambda a, b: (1 - F.cosine_similarity(a, b)).mean(), projected_noisy, projected)


def contrast(noisy: Levels, projected: Levels) -> Tensor:
    """By how much whole encoded levels with noise are more similar than a margin to projections without.

    Cosine similarity, mean over images, sum over levels.
    """

    def of_level(a: Tensor, b: Tensor) -> Tensor:
        return (F.cosine_similarity(a.flatten(1), b.flatten(1)) - MARGIN).clamp_min(0).mean()

    return _sum(of_level, noisy, projected)


def _sum(of_level: Callable[[Tensor, Tensor], Tensor], first: Levels, second: Levels) -> Tensor:
    return torch.stack([of_level(a, b) for a, b in zip(first, second, strict=True)]).sum()
