"""Random change of an image's colours."""

import torch
from torch import Tensor


def colour_jitter(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast or saturation of a uint8 image (3, H, W) by U(1 - strength, 1 + strength)."""
    from torchvision.transforms.v2 import functional as transforms

    change = (transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation)
    choice = int(torch.randint(3, (), generator=generator))
    factor = 1 - strength + 2 * strength * float(torch.rand((), generator=generator))
    changed: Tensor = change[choice](image, factor)
    return changed
