"""The images that are timed: many, all different, made before anything is timed."""

import torch
from torch import Tensor

IMAGES = 64
"""Different images at least: a cached result must not look like a fast one."""


def make_batches(
    batch: int, input_size: tuple[int, int], dtype: torch.dtype, *, pinned: bool, seed: int
) -> list[Tensor]:
    """Batches of random images in host memory, to be passed one after the other and then again.

    Neither zeros nor one image over and over: multiplying zeros takes a GPU less power, and so less time.

    Args:
        batch: Images per batch.
        input_size: Height and width in pixels.
        dtype: ``torch.uint8`` for values 0-255, else a floating type for values 0-1.
        pinned: Whether the memory is one that a GPU can read by itself.
        seed: Of the images.

    Returns:
        Tensors (B, 3, H, W); at least two.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(max(2, -(-IMAGES // batch))):
        images = torch.randint(0, 256, (batch, 3, *input_size), dtype=torch.uint8, generator=generator)
        images = images if dtype == torch.uint8 else (images.float() / 255).to(dtype)
        batches.append(images.pin_memory() if pinned else images)
    return batches
