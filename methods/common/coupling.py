"""Affine coupling of normalising flows, both halves transformed in turn."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

LIMIT = 1e6
"""Of the absolute values that a coupling returns."""


def permutation(channels: int, seed: int) -> Tensor:
    """A fixed random order of channels, int64 (channels,), the one that NumPy's old generator draws for a seed."""
    import numpy as np

    return torch.from_numpy(np.random.RandomState(seed).permutation(channels))


class AffineCoupling(nn.Module):
    """Scales and shifts each half of the channels by what a network makes of the other half (Kingma, Dhariwal 2018).

    With ``a`` and ``b`` the halves and ``c`` the condition: ``a' = exp(s2) a + t2``, where ``s2, t2`` come from
    ``(b, c)``; ``b' = exp(s1) b + t1``, where ``s1, t1`` come from ``(a', c)``. What the networks say of a scale goes
    through ``clamp`` before it is its logarithm.

    Args:
        channels: Of the features.
        condition_channels: Of the condition.
        hidden: Channels between the two convolutions of a network.
        kernel: Side of their kernels, odd.
        clamp: Bounds the logarithm of a scale.
    """

    def __init__(
        self, channels: int, condition_channels: int, hidden: int, kernel: int, clamp: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.sizes = [channels // 2, channels - channels // 2]
        first, second = self.sizes
        self.of_first = _Subnet(first + condition_channels, hidden, 2 * second, kernel)
        self.of_second = _Subnet(second + condition_channels, hidden, 2 * first, kernel)
        self.clamp = clamp

    def forward(self, features: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Transform features (B, C, h, w) under a condition (B, D, h, w).

        Returns:
            Features of the same shape, and the logarithm of the Jacobian's determinant as a sum over positions of
            (B, h, w).
        """
        first, second = features.split(self.sizes, dim=1)
        second_log_scale, shift = self._scale_and_shift(self.of_second, second, condition)
        first = second_log_scale.exp() * first + shift
        first_log_scale, shift = self._scale_and_shift(self.of_first, first, condition)
        second = first_log_scale.exp() * second + shift
        limit = min(LIMIT, torch.finfo(features.dtype).max)
        transformed = torch.cat([first, second], dim=1).clamp(-limit, limit)
        return transformed, first_log_scale.sum(1) + second_log_scale.sum(1)

    def inverse(self, transformed: Tensor, condition: Tensor) -> Tensor:
        """Features that :meth:`forward` makes ``transformed`` of, both (B, C, h, w), if it has cut none off."""
        first, second = transformed.split(self.sizes, dim=1)
        log_scale, shift = self._scale_and_shift(self.of_first, first, condition)
        second = (second - shift) * (-log_scale).exp()
        log_scale, shift = self._scale_and_shift(self.of_second, second, condition)
        return torch.cat([(first - shift) * (-log_scale).exp(), second], dim=1)

    def _scale_and_shift(self, subnet: nn.Module, half: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithm of the scale, and the shift, of the other half."""
        scale, shift = subnet(torch.cat([half, condition], dim=1)).chunk(2, dim=1)
        return self.clamp(scale), shift


class _Subnet(nn.Module):
    """Two convolutions, the border repeated outside, times a number that starts at zero, to change nothing yet."""

    def __init__(self, inputs: int, hidden: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv2d(inputs, hidden, kernel), nn.Conv2d(hidden, outputs, kernel)])
        self.margin = kernel // 2
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        first, last = self.convolutions
        hidden = first(_repeat_border(maps, self.margin)).relu()
        outputs: Tensor = last(_repeat_border(hidden, self.margin)) * self.gamma
        return outputs


def _repeat_border(maps: Tensor, margin: int) -> Tensor:
    """Repeat the border of maps (B, C, h, w) ``margin`` times; unlike PyTorch's own, with a deterministic gradient."""
    for axis in (2, 3):
        near, far = maps.narrow(axis, 0, 1), maps.narrow(axis, maps.shape[axis] - 1, 1)
        maps = torch.cat([near] * margin + [maps] + [far] * margin, dim=axis)
    return maps
