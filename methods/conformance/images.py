"""Small synthetic images that detectors are checked on, and images that remember whether they were read."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from methods.detector import ImageSet

DEFECT = (slice(1, 3), slice(3, 5))
"""Rows and columns of the planted defect, in sixths of the image: beside its middle, so that a map that is turned or
mirrored shows it elsewhere."""


def striped(count: int, size: tuple[int, int], seed: int, *, gray: bool = False) -> Tensor:
    """Photographs of a striped surface, uint8 (count, 3, height, width): normal images with some noise.

    Args:
        count: How many.
        size: Height and width in pixels.
        seed: Of the noise.
        gray: Whether the three channels are equal.
    """
    generator = np.random.default_rng(seed)
    columns = 128 + 60 * np.sin(np.arange(size[1]) / 4)
    pixels = columns + generator.normal(0, 12, (count, 1 if gray else 3, *size))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8)).expand(-1, 3, -1, -1).clone()


def defective(images: Tensor) -> Tensor:
    """The same images with a red patch at ``DEFECT``."""
    images = images.clone()
    red = torch.tensor([250, 20, 20], dtype=torch.uint8).view(3, 1, 1)
    images[(..., *defect_region(images.shape[-2], images.shape[-1]))] = red
    return images


def defect_region(height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the planted defect in an image or a map of this size."""
    (top, bottom), (left, right) = ((part.start, part.stop) for part in DEFECT)
    return slice(top * height // 6, bottom * height // 6), slice(left * width // 6, right * width // 6)


class WatchedImages(ImageSet):
    """Images that remember whether any was read."""

    read = False

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        """One image or a batch, as of any other set."""
        self.read = True
        return super().__getitem__(index)


class WatchedPhotographs:
    """A source of a few photographs that remembers whether it was asked for any."""

    identity = "striped photographs"
    read = False

    def images(
        self,
        size: tuple[int, int],
        *,
        center_crop: tuple[int, int] | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> ImageSet:
        """A few striped images of the size that is left of the photographs."""
        self.read = True
        return ImageSet(striped(min(limit or 4, 4), center_crop or size, seed))
