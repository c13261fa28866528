"""Mean and standard deviation per channel, over more features than fit into memory."""

import torch
from torch import Tensor


class ChannelStatistics:
    """Sums features in float64, on their own device: in it, the difference of squares loses nothing that float32 held.

    Args:
        channels: Of the features.
        device: Where they are.
    """

    def __init__(self, channels: int, device: torch.device) -> None:
        self._sum = torch.zeros(channels, dtype=torch.float64, device=device)
        self._squares = torch.zeros_like(self._sum)
        self._positions = 0

    def add(self, features: Tensor) -> None:
        """Count features (B, C, h, w) in."""
        features = features.double()
        self._sum += features.sum((0, 2, 3))
        self._squares += features.square().sum((0, 2, 3))
        self._positions += features[:, 0].numel()

    def mean_and_std(self, least_std: float = 1e-6) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel, float32 (1, C, 1, 1); the latter at least ``least_std``."""
        mean = self._sum / self._positions
        std = (self._squares / self._positions - mean.square()).clamp_min(0).sqrt()
        return mean.float().view(1, -1, 1, 1), std.float().clamp_min(least_std).view(1, -1, 1, 1)
