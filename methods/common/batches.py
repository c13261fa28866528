"""Batches of training images as papers count them: epoch by epoch."""

from collections.abc import Iterator

import torch
from torch import Tensor


def batches_per_epoch(count: int, size: int, *, drop_last: bool) -> int:
    """How many batches :func:`epochs` makes of ``count`` images."""
    return max(1, count // size) if drop_last else -(-count // size)


def epochs(count: int, size: int, generator: torch.Generator, *, drop_last: bool) -> Iterator[Tensor]:
    """Indices of ``size`` of ``count`` images at a time, forever; each epoch in a new random order.

    Args:
        count: Images.
        size: Of a batch.
        generator: Draws the orders.
        drop_last: Leave out what an epoch has left at its end that is no full batch; unless it is all there is.
            Otherwise that is a smaller batch.
    """
    while True:
        batches = torch.randperm(count, generator=generator).split(size)
        yield from batches[: batches_per_epoch(count, size, drop_last=drop_last)]
