"""The three networks of EfficientAD and its anomaly map (Batzner et al., WACV 2024, Table 7 and Algorithm 2)."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from methods.common.normalisation import Normalise
from methods.common.precision import run_network
from methods.common.resampling import Resize, Separable, bilinear_matrix
from methods.efficientad.pdn import TEACHER_CHANNELS, Size, patch_description_network

INPUT_SIZE = (256, 256)
GRID = 64
"""Side of the grid of feature positions that tiles the image."""
BORDER = 4
"""Feature positions that the unpadded networks lack on each side of the grid."""
DROPOUT = 0.2
"""Of the autoencoder's decoder (Table 7)."""

MapBorder = Literal["replicate", "zeros"]


def autoencoder(side: int, dropout: float = DROPOUT) -> nn.Sequential:
    """Build the autoencoder of Table 7: normalised images (B, 3, 256, 256) to features (B, 384, side, side).

    Args:
        side: Of the feature grid that it shall match: 64 with padded networks, 56 with unpadded ones.
        dropout: Probability of the decoder's dropout layers.
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((3, 32, 32, 64, 64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(64, 64, 8)]
    # A convolution of 4x4 padded by 2 adds one to the side.
    for before, size in pairwise((0, 3, 8, 15, 32, 63, 127)):
        layers += [
            Resize((before + 1,) * 2, (size,) * 2),
            nn.Conv2d(64, 64, 4, padding=2),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        ]
    layers += [
        Resize((128,) * 2, (side,) * 2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, TEACHER_CHANNELS, 3, padding=1),
    ]
    return nn.Sequential(*layers)


class SeparateStudents(nn.Module):
    """A student of the teacher and another of the autoencoder, as before Table 4's row "Shared student".

    Args:
        size: ``S`` or ``M``.
        padding: As in the teacher, whose architecture both have.
    """

    def __init__(self, size: Size, *, padding: bool) -> None:
        super().__init__()
        self.of_teacher = patch_description_network(size, TEACHER_CHANNELS, padding=padding)
        self.of_autoencoder = patch_description_network(size, TEACHER_CHANNELS, padding=padding)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) to features (B, 768, h, w), in the order of the shared student."""
        return torch.cat([self.of_teacher(images), self.of_autoencoder(images)], dim=1)


class EfficientAdNetwork(nn.Module):
    """Teacher, student and autoencoder with the numbers that turn their outputs into an anomaly map.

    Once trained it is the fitted detector. It is made with random weights, drawn from the global generator.

    Args:
        size: ``S`` or ``M``.
        padding: Whether teacher and student pad as Tables 5 and 6 say. The paper times and scores them unpadded
            (its Appendix E).
        map_border: What stands at the border of the maps of unpadded networks; see :meth:`measured_maps`.
        dropout: Probability of the autoencoder's dropout layers.
        shared_student: Whether one student imitates both teacher and autoencoder, or each has its own.

    Attributes:
        mean: Of each teacher channel over the training images, (1, 384, 1, 1).
        std: Likewise, the standard deviation.
        quantiles: Rows ST and AE, columns a and b: the values of the maps that become 0 and 0.1; (2, 2). At first 0
            and 0.1 themselves.
    """

    networks = ("teacher", "student", "autoencoder")
    mean: Tensor
    std: Tensor
    quantiles: Tensor

    def __init__(
        self,
        size: Size,
        *,
        padding: bool,
        map_border: MapBorder = "replicate",
        dropout: float = DROPOUT,
        shared_student: bool = True,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.map_border = map_border
        self.teacher = patch_description_network(size, TEACHER_CHANNELS, padding=padding)
        self.student = (
            patch_description_network(size, 2 * TEACHER_CHANNELS, padding=padding)
            if shared_student
            else SeparateStudents(size, padding=padding)
        )
        missing = 0 if padding else BORDER
        self.autoencoder = autoencoder(GRID - 2 * missing, dropout)
        self.normalise = Normalise()
        resizing = bilinear_matrix(GRID, INPUT_SIZE[0]) @ _completion(GRID, missing, map_border)
        self.resize = Separable(resizing, resizing)
        self.register_buffer("mean", torch.zeros(1, TEACHER_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(1, TEACHER_CHANNELS, 1, 1))
        self.register_buffer("quantiles", torch.tensor([[0.0, 0.1], [0.0, 0.1]]))
        self.teacher.requires_grad_(False)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def prepare(self, images: Tensor) -> Tensor:
        """Normalise images (B, 3, 256, 256), uint8 0-255 or floating 0-1, in the layout of the networks' weights."""
        return self.normalise(images).contiguous(memory_format=torch.channels_last)  # type: ignore[no-any-return]

    def target(self, teacher_output: Tensor) -> Tensor:
        """Normalise the teacher's output (B, 384, h, w) per channel, in float32 (Algorithm 2, line 2)."""
        return (teacher_output.float() - self.mean) / self.std

    def feature_maps(self, images: Tensor) -> Tensor:
        """Student-teacher and autoencoder-student maps on the feature grid (Algorithm 2, lines 1-6).

        Only the networks run in their own precision: differences and means of nearly equal numbers are taken in
        float32.

        Args:
            images: As :meth:`prepare` makes them.

        Returns:
            Both maps, float32 (2, B, h, w).
        """
        target = self.target(run_network(self.teacher, images))
        student, student_of_autoencoder = run_network(self.student, images).split(TEACHER_CHANNELS, dim=1)
        structural = (target - student).square().mean(1)
        logical = (run_network(self.autoencoder, images) - student_of_autoencoder).square().mean(1)
        return torch.stack([structural, logical])

    def measured_maps(self, images: Tensor) -> Tensor:
        """Both maps as their quantiles are measured (Algorithm 1, lines 44-57).

        The vectors of the unpadded networks lie on the inner 56x56 of the 64x64 grid that tiles the image. With
        ``replicate``, the receptive field of an outermost one reaching the image's border, it stands in for the
        missing positions beyond it, and quantiles are of all pixels of the resized maps, as in the paper. With
        ``zeros``, the quantiles are those of the positions that there are, and the map at the missing ones is zero
        after normalisation: as high as nine tenths of a normal image's map.

        Args:
            images: As :meth:`prepare` makes them.

        Returns:
            float32 (2, B, 256, 256), with a border of zeros (2, B, 56, 56).
        """
        maps = self.feature_maps(images)
        return maps if self.map_border == "zeros" else self.resize(maps)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps and image scores of images, uint8 0-255 or floating 0-1 (Algorithm 2).

        Args:
            images: (B, 3, 256, 256).

        Returns:
            float32 maps (B, 256, 256), combined of two of which 90 % of the validation pixels lie below 0 and 99.5 %
            below 0.1, and their maxima (B,).
        """
        combined = combined_map(self.measured_maps(self.prepare(images)), self.quantiles)
        if self.map_border == "zeros":
            combined = self.resize(combined)
        return combined, combined.flatten(1).amax(1)


def combined_map(maps: Tensor, quantiles: Tensor) -> Tensor:
    """Normalise both maps and average them (Algorithm 2, lines 8-10).

    Args:
        maps: Structural and logical, float32 (2, B, h, w).
        quantiles: The values that become 0 and 0.1, (2, 2).

    Returns:
        float32 (B, h, w).
    """
    low = quantiles[:, 0]
    scale = 0.1 / (quantiles[:, 1] - low)
    return 0.5 * ((maps - low.view(2, 1, 1, 1)) * scale.view(2, 1, 1, 1)).sum(0)


def _completion(whole: int, missing: int, border: MapBorder) -> Tensor:
    """Matrix (whole, whole - 2 * missing), float64, that adds ``missing`` positions at both ends of a row."""
    present = torch.arange(whole - 2 * missing)
    position = torch.arange(whole) - missing
    if border == "replicate":
        position = position.clamp(0, len(present) - 1)
    return (position[:, None] == present).double()
