"""PatchCore's patch features, also the distillation target of EfficientAD's teacher."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.common.backbones import Backbone


class PatchFeatures(nn.Module):
    """Locally aware patch features of several backbone levels (Roth et al. 2022, section 3.1).

    Each level's 3x3 neighbourhoods are flattened and pooled to ``level_dim`` numbers, the deeper levels are resized
    to the grid of the first, and the stack of all levels is pooled to ``dim`` numbers per patch.

    Flattening and both poolings are one linear map per level, the same at each position: a convolution with fixed
    weights, most of them zero. Resizing acts on positions and the map on channels, so they commute.

    Args:
        backbone: Levels in the order of their strides, finest first.
        dim: Numbers per patch, a multiple of the number of levels.
        level_dim: Numbers per patch and level before the last pooling.
        patch_size: Side of the neighbourhood in feature-map positions, odd.

    Raises:
        ValueError: ``dim`` is not a multiple of the number of levels.
    """

    def __init__(self, backbone: Backbone, dim: int, level_dim: int = 1024, patch_size: int = 3) -> None:
        super().__init__()
        if dim % len(backbone.channels):
            raise ValueError(f"dim is a multiple of the number of levels, {len(backbone.channels)}, not {dim}")
        self.backbone = backbone
        self.dim = dim
        self.pooling = nn.ModuleList(
            _pooling(channels, patch_size, level_dim, dim // len(backbone.channels)) for channels in backbone.channels
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images (B, 3, H, W), uint8 or float 0-255, to features (B, dim, h, w) on the finest level's grid."""
        first, *deeper = (pool(level) for pool, level in zip(self.pooling, self.backbone(images), strict=True))
        resized = [F.interpolate(level, first.shape[-2:], mode="bilinear") for level in deeper]
        return torch.cat([first, *resized], dim=1)


def _pooling(channels: int, patch_size: int, level_dim: int, dim: int) -> nn.Conv2d:
    """Neighbourhoods of (B, channels, h, w), zeros outside, pooled to level_dim and then to dim numbers."""
    matrix = _pooling_matrix(level_dim, dim) @ _pooling_matrix(channels * patch_size**2, level_dim)
    # Bins end where these groups of channels end, so only the blocks on the diagonal have weights.
    groups = math.gcd(channels, level_dim, dim)
    blocks = matrix.view(groups, dim // groups, groups, -1)[range(groups), :, range(groups)]
    convolution = nn.Conv2d(channels, dim, patch_size, padding=patch_size // 2, groups=groups, bias=False)
    convolution.weight.data = blocks.reshape_as(convolution.weight).contiguous(memory_format=torch.channels_last)
    return convolution.requires_grad_(False)


def _pooling_matrix(inputs: int, outputs: int) -> Tensor:
    """``F.adaptive_avg_pool1d`` from ``inputs`` to ``outputs`` numbers as a matrix (outputs, inputs)."""
    bins = torch.arange(outputs)[:, None]
    start = bins * inputs // outputs
    end = -(-(bins + 1) * inputs // outputs)
    position = torch.arange(inputs)
    member = ((start <= position) & (position < end)).float()
    return member / member.sum(1, keepdim=True)
