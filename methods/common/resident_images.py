"""Images of a fit where they are used: no step waits for a copy."""

import torch
from torch import Tensor

from methods.detector import ImageSet


class ResidentImages:
    """Images that one takes one by one: all on the device if they fit into a budget, else copied when they are taken.

    Args:
        images: The images.
        device: Where they are wanted.
        budget: Bytes of the device that they may take.
    """

    def __init__(self, images: ImageSet, device: torch.device, budget: int) -> None:
        height, width = images.size
        # The CPU has them already.
        fits = device.type != "cpu" and len(images) * 3 * height * width <= budget
        self._device = device
        self._images: ImageSet | Tensor = images[:].to(device) if fits else images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        """Image ``index`` on the device, uint8 (3, H, W)."""
        return self._images[index].to(self._device, non_blocking=True)
