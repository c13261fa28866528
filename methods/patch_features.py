"""PatchCore's patch features, also the distillation target of EfficientAD's teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.backbones import Backbone


class PatchFeatures(nn.Module):
    """Locally aware patch features of several backbone levels (Roth et al. 2022, section 3.1).

    Each level's 3x3 neighbourhoods are flattened and pooled to ``level_dim`` numbers, the deeper levels are resized
    to the grid of the first, and the stack of all levels is pooled to ``dim`` numbers per patch.

    Args:
        backbone: Levels in the order of their strides, finest first.
        dim: Numbers per patch.
        level_dim: Numbers per patch and level before the last pooling.
        patch_size: Side of the neighbourhood in feature-map positions, odd.
    """

    def __init__(self, backbone: Backbone, dim: int, level_dim: int = 1024, patch_size: int = 3) -> None:
        super().__init__()
        self.backbone = backbone
        self.dim = dim
        self.level_dim = level_dim
        self.patch_size = patch_size

    def forward(self, images: Tensor) -> Tensor:
        """Map RGB images (B, 3, H, W), uint8 or float 0-255, to features (B, dim, h, w) on the finest level's grid."""
        # Resizing acts on positions and pooling on channels, so they commute: pooling first resizes less.
        levels = [_pool_channels(self._neighbourhoods(level), self.level_dim) for level in self.backbone(images)]
        grid = levels[0].shape[-2:]
        resized = [levels[0], *(F.interpolate(level, grid, mode="bilinear") for level in levels[1:])]
        return _pool_channels(torch.cat(resized, dim=1), self.dim)

    def _neighbourhoods(self, level: Tensor) -> Tensor:
        """(B, C, h, w) to (B, C * patch_size^2, h, w), zeros outside the map."""
        patches = F.unfold(level, self.patch_size, padding=self.patch_size // 2)
        return patches.view(*patches.shape[:2], *level.shape[-2:])


def _pool_channels(maps: Tensor, dim: int) -> Tensor:
    """Average neighbouring channels, (B, C, h, w) to (B, dim, h, w); repeats channels where ``dim`` exceeds C."""
    rows = maps.permute(0, 2, 3, 1)
    pooled = F.adaptive_avg_pool1d(rows.flatten(0, 2).unsqueeze(1), dim)
    return pooled.view(*rows.shape[:3], dim).permute(0, 3, 1, 2)
