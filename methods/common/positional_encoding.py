"""Where on a grid a position is, as channels of sines and cosines."""

import math

import torch
from torch import Tensor


def positional_encoding(channels: int, grid: tuple[int, int]) -> Tensor:
    """Encode each position of a grid (Vaswani et al. 2017, section 3.5, for both axes), float32 (channels, h, w).

    The first half of the channels encodes the column, the second half the row: sine and cosine in turn, their
    wavelengths a geometric sequence from 2 pi to nearly 10000 times 2 pi.

    Args:
        channels: A multiple of 4.
        grid: Height and width.

    Raises:
        ValueError: ``channels`` is not a multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"channels of a positional encoding are a multiple of 4, not {channels}")
    height, width = grid
    half = channels // 2
    frequencies = torch.exp(torch.arange(0, half, 2) * -(math.log(10_000) / half))
    columns, rows = (_waves(length, frequencies) for length in (width, height))
    return torch.cat([columns[:, None].expand(-1, height, -1), rows[:, :, None].expand(-1, -1, width)])


def _waves(length: int, frequencies: Tensor) -> Tensor:
    """Sine and cosine of each position at each frequency, in turn, (2 F, length)."""
    phases = frequencies[:, None] * torch.arange(length)
    return torch.stack([phases.sin(), phases.cos()], dim=1).flatten(0, 1)
