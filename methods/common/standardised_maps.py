"""Anomaly maps of different scales as one: standardised by what they are on held-out normal images, and added."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from methods.common.statistics import ChannelStatistics
from methods.detector import FitContext, ImageSet, Progress


class StandardisedSum(nn.Module):
    """Sum of maps, each less its mean over normal images, and divided by its standard deviation there.

    Args:
        maps: How many.

    Attributes:
        mean: Of each, (1, maps, 1, 1); zero until measured.
        std: Likewise, the standard deviation; one until measured.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, maps, 1, 1))
        self.register_buffer("std", torch.ones(1, maps, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Add maps (B, maps, h, w) to (B, h, w)."""
        return ((maps - self.mean) / self.std).sum(1)

    @torch.no_grad()
    def measure(self, compute: Callable[[Tensor], Tensor], images: ImageSet, context: FitContext) -> None:
        """Set mean and standard deviation of each map from all pixels of images.

        Args:
            compute: Maps uint8 images (B, 3, H, W) on the device to maps (B, maps, h, w).
            images: Held-out normal images.
            context: Names the device, and is told how many images have been computed.
        """
        statistics = ChannelStatistics(self.mean.shape[1], context.device)
        for done, batch in enumerate(images.batches(1), start=1):
            statistics.add(compute(batch.to(context.device)))
            context.progress(Progress("normalise", done, len(images)))
        mean, std = statistics.mean_and_std()
        self.mean.copy_(mean)
        self.std.copy_(std)
