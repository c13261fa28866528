"""Anomalies that DSR makes up: regions of other codebook vectors, and smudges (section 3.3, and its official code)."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.common.noise import perlin_noise
from methods.dsr.vq_model import CODES, Codebook, VqModel

PERLIN_EXPONENTS = 6
"""Along each side, the noise has 1, 2, 4, ... cells, drawn from so many numbers."""
THRESHOLD = 0.5
"""Above it, the noise is an anomaly."""
NORMAL_PROBABILITY = 0.5
"""Of an image without an anomaly."""
MASK_ROTATION = IMAGE_ROTATION = 90
"""Largest angle in degrees, either way."""
SKIPPED_CODES = CODES * 5 // 100
"""The nearest vectors, which would look too much alike."""
LEAST_STRENGTH = 0.2
"""Least share of the codebook, ordered by distance, from which an anomaly's vectors are drawn; the largest is 1."""
LARGEST_IMAGE_SHARE = 0.8
"""Of the image below a smudge."""


def rotated(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate images (B, C, H, W) about their centre, each by its angle in degrees (B,); 0 comes in at the corners."""
    angles = degrees.to(images) * (math.pi / 180)
    height, width = images.shape[2:]
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # In coordinates of -1 to 1 along both sides, whatever their lengths are.
    matrices = torch.stack(
        [
            torch.stack([cos, -sin * (height / width), zero], dim=1),
            torch.stack([sin * (width / height), cos, zero], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def rotate_some(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Rotate each of images (B, C, H, W) with a probability, by up to 90 degrees either way."""
    chosen = torch.rand(len(images), generator=generator) < probability
    degrees = IMAGE_ROTATION * (2 * torch.rand(len(images), generator=generator) - 1)
    turned = images.clone()
    if chosen.any():
        turned[chosen] = rotated(images[chosen], degrees[chosen])
    return turned


def anomaly_masks(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw masks of anomalies, 0 or 1, float32 (count, 1, H, W); half of them are empty.

    It is Perlin noise, rotated, above a threshold, which may be nowhere.
    """
    noise = torch.stack([_noise(size, generator) for _ in range(count)])[:, None]
    degrees = MASK_ROTATION * (2 * torch.rand(count, generator=generator) - 1)
    masks = (rotated(noise, degrees) > THRESHOLD).float()
    anomalous = torch.rand(count, generator=generator) >= NORMAL_PROBABILITY
    return masks * anomalous[:, None, None, None]


def _noise(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    down, right = (2 ** torch.randint(PERLIN_EXPONENTS, (2,), generator=generator)).tolist()
    return perlin_noise(size, (down, right), generator)


def smudged(images: Tensor, masks: Tensor, generator: torch.Generator) -> Tensor:
    """Blend a random colour into images (B, 3, H, W), 0-1, where masks (B, 1, H, W) are 1, to a random degree."""
    colours = torch.rand(len(images), 3, 1, 1, generator=generator).to(images)
    shares = LARGEST_IMAGE_SHARE * torch.rand(len(images), 1, 1, 1, generator=generator).to(images)
    return torch.where(masks.bool(), (1 - shares) * colours + shares * images, images)


def replaced(
    features: Tensor, quantised: Tensor, book: Codebook, masks: Tensor, strengths: Tensor, generator: torch.Generator
) -> Tensor:
    """Replace vectors of a codebook by others that are neither near to the features nor, if strength is small, far.

    Args:
        features: Which have been quantised, (B, 128, h, w).
        quantised: The nearest vectors, of the same shape.
        book: Of what.
        masks: Where, 0 or 1, (B, 1, h, w).
        strengths: Of each image, the share of the codebook, ordered by distance from a feature, from which the vector
            is drawn, without the nearest ``SKIPPED_CODES``; (B,) on the CPU.
        generator: Draws, on the CPU.
    """
    image, down, right = masks[:, 0].nonzero(as_tuple=True)
    if len(image) == 0:
        return quantised
    farthest = ((strengths * CODES).long() + 1).clamp_max(CODES - 1)[image.cpu()]
    draws = torch.rand(len(image), generator=generator)
    ranks = SKIPPED_CODES + (draws * (farthest - SKIPPED_CODES)).long()
    order = book.distances(features.permute(0, 2, 3, 1)[image, down, right]).argsort(dim=1)
    numbers = order.gather(1, ranks.to(order.device)[:, None])[:, 0]
    changed = quantised.permute(0, 2, 3, 1).clone()
    changed[image, down, right] = book.vectors[numbers]
    return changed.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class FeatureAnomalies:
    """Quantised features of images, without and with anomalies.

    Attributes:
        normal_lo: Without, (B, 128, H/8, W/8).
        normal_hi: Likewise, (B, 128, H/4, W/4).
        lo: With anomalies.
        hi: Likewise.
        masks: Where they are, to the resolution of the coarser level that has them, 0 or 1, (B, 1, H, W).
    """

    normal_lo: Tensor
    normal_hi: Tensor
    lo: Tensor
    hi: Tensor
    masks: Tensor


@torch.no_grad()
def feature_anomalies(vq: VqModel, images: Tensor, masks: Tensor, generator: torch.Generator) -> FeatureAnomalies:
    """Put anomalies into the features of images: of half of them at both levels, of a quarter at either.

    Args:
        vq: The frozen quantised autoencoder.
        images: (B, 3, H, W), 0-1.
        masks: Where, 0 or 1, (B, 1, H, W).
        generator: Draws, on the CPU.
    """
    count = len(images)
    strengths_lo, strengths_hi = (
        LEAST_STRENGTH + (1 - LEAST_STRENGTH) * torch.rand(count, generator=generator) for _ in range(2)
    )
    both, only_lo = (torch.randint(2, (count,), generator=generator).bool() for _ in range(2))
    in_lo, in_hi = ((both | chosen).to(images.device)[:, None, None, None] for chosen in (only_lo, ~only_lo))
    encoded = vq.encode(images)
    coarse, fine = (_pooled(masks, level) for level in (encoded.quantised_lo, encoded.quantised_hi))
    lo = replaced(encoded.features_lo, encoded.quantised_lo, vq.codebook_lo, coarse * in_lo, strengths_lo, generator)
    # What the coarse level says enters the features of the fine one.
    features_hi = vq.fine_features(encoded.coded, lo)
    hi = replaced(features_hi, vq.codebook_hi(features_hi), vq.codebook_hi, fine * in_hi, strengths_hi, generator)
    hi = torch.where(in_hi, hi, encoded.quantised_hi)
    where = torch.where(in_lo, _enlarged(coarse, masks), _enlarged(fine, masks))
    return FeatureAnomalies(encoded.quantised_lo, encoded.quantised_hi, lo, hi, where)


def _pooled(masks: Tensor, level: Tensor) -> Tensor:
    return F.max_pool2d(masks, masks.shape[-1] // level.shape[-1])


def _enlarged(coarse: Tensor, fine: Tensor) -> Tensor:
    return F.interpolate(coarse, fine.shape[-2:], mode="nearest")
