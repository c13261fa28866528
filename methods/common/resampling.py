"""Resizing and smoothing to a fixed size, as two small matrix products: deterministic and fast on every device.

Bilinear interpolation and Gaussian filtering are linear and separable, so a map is resized by one matrix for its rows
and one for its columns. PyTorch's own bilinear interpolation has no deterministic gradient on CUDA: while
deterministic algorithms are chosen, some 35 kernels stand in for it. On a CPU it is deterministic, and for feature
maps ten times as fast as the products, so there it is taken for them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bilinear_matrix(source: int, target: int, *, align_corners: bool = False) -> Tensor:
    """Bilinear interpolation along one axis, float64 (target, source).

    Args:
        source: Numbers to interpolate.
        target: How many to make of them.
        align_corners: Whether it is the centres of the outermost pixels that coincide, and not their outer edges.
    """
    unit_vectors = torch.eye(source, dtype=torch.float64)
    return F.interpolate(unit_vectors[None], target, mode="linear", align_corners=align_corners)[0].T.contiguous()


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """Gaussian filter along one axis, float64 (size, size).

    It is ``scipy.ndimage.gaussian_filter``'s: cut at four sigma, the map mirrored at its edges.
    """
    radius = int(4 * sigma + 0.5)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).double() / sigma).square())
    return _filter_matrix(size, kernel / kernel.sum())


def box_matrix(size: int, side: int) -> Tensor:
    """Mean of ``side`` neighbours, an odd number, along one axis, mirrored at its edges; float64 (size, size)."""
    return _filter_matrix(size, torch.full((side,), 1 / side, dtype=torch.float64))


def _filter_matrix(size: int, kernel: Tensor) -> Tensor:
    """Correlation along one axis with a kernel of odd length, mirrored at its edges; float64 (size, size)."""
    radius = len(kernel) // 2
    position = (torch.arange(size)[:, None] + torch.arange(-radius, radius + 1)) % (2 * size)
    mirrored = torch.minimum(position, 2 * size - 1 - position)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, mirrored, kernel.expand(size, -1))


class Separable(nn.Module):
    """A linear map of images that acts on rows and on columns.

    Args:
        rows: Takes a column of h numbers to H, (H, h).
        columns: Takes a row of w numbers to W, (W, w).
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows.float(), persistent=False)
        self.register_buffer("columns", columns.float(), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Take maps (..., h, w) to (..., H, W); the memory format channels_last is kept."""
        if maps.ndim == 4 and maps.is_contiguous(memory_format=torch.channels_last):
            return self._channels_last(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.rows @ (maps @ self.columns.T)

    def _channels_last(self, maps: Tensor) -> Tensor:
        """Take (B, h, w, C) to (B, H, W, C), both contiguous: no product needs a transposed copy."""
        batch, height, width, channels = maps.shape
        rows = torch.bmm(self.rows.expand(batch, -1, -1), maps.reshape(batch, height, width * channels))
        lines = rows.view(-1, width, channels)
        return torch.bmm(self.columns.expand(len(lines), -1, -1), lines).view(batch, -1, len(self.columns), channels)


class Resize(Separable):
    """Bilinear resizing, and smoothing if wanted, of maps of one size to another.

    Args:
        source: Height and width of the maps.
        target: Height and width to resize to.
        sigma: Of a Gaussian filter afterwards, in pixels of the target; none when ``None``.
        align_corners: As in :func:`bilinear_matrix`.
    """

    def __init__(
        self,
        source: tuple[int, int],
        target: tuple[int, int],
        sigma: float | None = None,
        *,
        align_corners: bool = False,
    ) -> None:
        matrices = [
            bilinear_matrix(coarse, fine, align_corners=align_corners)
            for coarse, fine in zip(source, target, strict=True)
        ]
        if sigma is not None:
            matrices = [gaussian_matrix(len(matrix), sigma) @ matrix for matrix in matrices]
        super().__init__(*matrices)
        self._target = target
        self._plain = sigma is None and not align_corners

    def forward(self, maps: Tensor) -> Tensor:
        """Resize maps (..., h, w) to (..., H, W); the memory format channels_last is kept."""
        if maps.ndim == 4 and maps.device.type == "cpu" and self._plain:
            return F.interpolate(maps, self._target, mode="bilinear")
        return super().forward(maps)
