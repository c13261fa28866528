"""The three networks of EfficientAD and its anomaly map (Batzner et al., WACV 2024, Table 7 and Algorithm 2)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.efficientad.pdn import TEACHER_CHANNELS, Size, patch_description_network

INPUT_SIZE = (256, 256)
BORDER = 4
"""Feature positions that the unpadded networks lack on each side of the 64x64 grid of the padded ones."""
QUANTILES = (0.9, 0.995)
"""Levels a and b that the map normalisation aligns with 0 and 0.1 (Algorithm 1, lines 56 and 57)."""


class Upsample(nn.Module):
    """Bilinear resizing to ``side`` x ``side`` positions."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor) -> Tensor:
        """Resize (B, C, h, w) to (B, C, side, side)."""
        return F.interpolate(maps, (self.side, self.side), mode="bilinear")


def autoencoder(side: int) -> nn.Sequential:
    """Build the autoencoder of Table 7: normalised images (B, 3, 256, 256) to features (B, 384, side, side).

    Args:
        side: Of the feature grid that it shall match: 64 with padded networks, 56 with unpadded ones.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((3, 32, 32, 64, 64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(64, 64, 8)]
    for size in (3, 8, 15, 32, 63, 127):
        layers += [Upsample(size), nn.Conv2d(64, 64, 4, padding=2), nn.ReLU(inplace=True), nn.Dropout(0.2)]
    layers += [
        Upsample(side),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, TEACHER_CHANNELS, 3, padding=1),
    ]
    return nn.Sequential(*layers)


class EfficientAdNetwork(nn.Module):
    """Teacher, student and autoencoder with the numbers that turn their outputs into an anomaly map.

    Args:
        size: ``S`` or ``M``.
        padding: Whether teacher and student pad as Tables 5 and 6 say. The paper times and scores them unpadded
            (its Appendix E).

    Attributes:
        mean: Of each teacher channel over the training images, (1, 384, 1, 1).
        std: Likewise, the standard deviation.
        quantiles: Rows ST and AE, columns a and b, of the validation maps; (2, 2).
    """

    mean: Tensor
    std: Tensor
    quantiles: Tensor

    def __init__(self, size: Size, *, padding: bool) -> None:
        super().__init__()
        self.padding = padding
        self.teacher = patch_description_network(size, TEACHER_CHANNELS, padding=padding)
        self.student = patch_description_network(size, 2 * TEACHER_CHANNELS, padding=padding)
        self.autoencoder = autoencoder(64 if padding else 64 - 2 * BORDER)
        self.register_buffer("mean", torch.zeros(1, TEACHER_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(1, TEACHER_CHANNELS, 1, 1))
        self.register_buffer("quantiles", torch.tensor([[0.0, 0.1], [0.0, 0.1]]))
        self.teacher.requires_grad_(False)

    def target(self, teacher_output: Tensor) -> Tensor:
        """Normalise the teacher's output (B, 384, h, w) per channel, in float32 (Algorithm 2, line 2)."""
        return (teacher_output.float() - self.mean) / self.std

    def feature_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Student-teacher and autoencoder-student maps on the feature grid (Algorithm 2, lines 1-6).

        Only the networks run in the precision of ``images`` or of autocast: differences and means of nearly equal
        numbers are taken in float32.

        Args:
            images: Normalised images (B, 3, 256, 256).

        Returns:
            Two float32 maps (B, h, w).
        """
        target = self.target(self.teacher(images))
        student, student_of_autoencoder = self.student(images).float().split(TEACHER_CHANNELS, dim=1)
        structural = (target - student).square().mean(1)
        logical = (self.autoencoder(images).float() - student_of_autoencoder).square().mean(1)
        return structural, logical

    def resize(self, maps: Tensor) -> Tensor:
        """Resize feature-grid maps (..., h, w) to (..., 256, 256) (Algorithm 2, line 7).

        The vectors of the unpadded networks lie on the inner 56x56 of the 64x64 grid that tiles the image, and the
        receptive field of an outermost one reaches the image's border: it stands in for the missing positions
        beyond it. Zeros there would blind the map along the border and enter its quantiles.
        """
        grid = maps.reshape(-1, 1, *maps.shape[-2:])
        if not self.padding:
            grid = F.pad(grid, (BORDER, BORDER, BORDER, BORDER), mode="replicate")
        return F.interpolate(grid, INPUT_SIZE, mode="bilinear").view(*maps.shape[:-2], *INPUT_SIZE)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, 256, 256) to float32 anomaly maps (B, 256, 256) (Algorithm 2)."""
        low = self.quantiles[:, 0]
        scale = 0.1 / (self.quantiles[:, 1] - low)
        maps = torch.stack(self.feature_maps(images))
        # The normalisation is affine and the resizing linear with weights that sum to 1, so they commute.
        combined = 0.5 * ((maps - low.view(2, 1, 1, 1)) * scale.view(2, 1, 1, 1)).sum(0)
        return self.resize(combined)
