"""PatchCore's patch features, also the distillation target of EfficientAD's teacher."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.common.backbones import Backbone
from methods.common.resampling import Resize


class PatchFeatures(nn.Module):
    """Locally aware patch features of several backbone levels (Roth et al. 2022, section 3.1).

    Each level's 3x3 neighbourhoods are flattened and pooled to ``level_dim`` numbers, the deeper levels are resized
    to the grid of the first, and the stack of all levels is pooled to ``dim`` numbers per patch.

    Flattening and both poolings are one linear map per level, the same at each position: a convolution with fixed
    weights, most of them zero. Resizing acts on positions and the map on channels, so they commute.

    Args:
        backbone: Levels in the order of their strides, finest first.
        dim: Numbers per patch, a multiple of the number of levels.
        input_size: Height and width of the images in pixels.
        level_dim: Numbers per patch and level before the last pooling.
        patch_size: Side of the neighbourhood in feature-map positions, odd.

    Attributes:
        grid: Height and width of the features.

    Raises:
        ValueError: ``dim`` is not a multiple of the number of levels.
    """

    def __init__(
        self, backbone: Backbone, dim: int, input_size: tuple[int, int], level_dim: int = 1024, patch_size: int = 3
    ) -> None:
        super().__init__()
        if dim % len(backbone.channels):
            raise ValueError(f"dim is a multiple of the number of levels, {len(backbone.channels)}, not {dim}")
        self.backbone = backbone
        self.dim = dim
        self.grid, *deeper = backbone.grid(input_size)
        self.pooling = nn.ModuleList(
            _Pooling(channels, patch_size, level_dim, dim // len(backbone.channels)) for channels in backbone.channels
        )
        self.resizing = nn.ModuleList(Resize(grid, self.grid) for grid in deeper)

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images (B, 3, H, W), uint8 0-255 or floating 0-1, to features (B, dim, h, w) on the finest grid."""
        first, *deeper = (pool(level) for pool, level in zip(self.pooling, self.backbone(images), strict=True))
        resized = [resize(level) for resize, level in zip(self.resizing, deeper, strict=True)]
        return torch.cat([first, *resized], dim=1)


class _Pooling(nn.Module):
    """Neighbourhoods of (B, channels, h, w), zeros outside, pooled to level_dim and then to dim numbers."""

    weight: Tensor

    def __init__(self, channels: int, patch_size: int, level_dim: int, dim: int) -> None:
        super().__init__()
        matrix = _pooling_matrix(level_dim, dim) @ _pooling_matrix(channels * patch_size**2, level_dim)
        # Bins end where these groups of channels end, so only the blocks on the diagonal have weights.
        self.groups = math.gcd(channels, level_dim, dim)
        blocks = matrix.view(self.groups, dim // self.groups, self.groups, -1)[
            range(self.groups), :, range(self.groups)
        ]
        weight = blocks.reshape(dim, channels // self.groups, patch_size, patch_size)
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last), persistent=False)

    def forward(self, level: Tensor) -> Tensor:
        return F.conv2d(level, self.weight, padding=self.weight.shape[-1] // 2, groups=self.groups)


def _pooling_matrix(inputs: int, outputs: int) -> Tensor:
    """``F.adaptive_avg_pool1d`` from ``inputs`` to ``outputs`` numbers as a matrix (outputs, inputs)."""
    bins = torch.arange(outputs)[:, None]
    start = bins * inputs // outputs
    end = -(-(bins + 1) * inputs // outputs)
    position = torch.arange(inputs)
    member = ((start <= position) & (position < end)).float()
    return member / member.sum(1, keepdim=True)
