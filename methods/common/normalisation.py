"""Images as networks want them: normalised per channel."""

import torch
from torch import Tensor, nn

from methods.weights.catalogue import IMAGENET_MEAN as IMAGENET_MEAN
from methods.weights.catalogue import IMAGENET_STD as IMAGENET_STD


class Normalise(nn.Module):
    """Normalises RGB images per channel; its constants are buffers, so that nothing is copied to a device per call.

    Args:
        mean: Per channel, for pixel values in [0, 1].
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: tuple[float, float, float] = IMAGENET_MEAN, std: tuple[float, float, float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (B, 3, H, W), uint8 0-255 or floating 0-1, to float32."""
        levels = images.float() if images.dtype == torch.uint8 else 255 * images.float()
        return (levels - self.mean) / self.std
