"""Batches of training images as papers count them: epoch by epoch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from methods.training_length import Epochs


def batches(count: int, length: Epochs, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of the images of each batch, forever; each epoch takes all of them in a new random order.

    Args:
        count: Images.
        length: How large a batch is, and what becomes of an incomplete one.
        generator: Draws the orders.
    """
    while True:
        yield from torch.randperm(count, generator=generator).split(length.batch_size)[: length.batches(count)]


def accumulated_batches(count: int, length: Epochs, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """The batches of each optimiser step, forever.

    A step ends after every so many batches of an epoch; what the epoch has left over belongs to the first step of the
    next. An epoch that has too few for any is one step.
    """
    of_epoch = length.batches(count)
    ends = min(length.accumulated_batches, of_epoch)
    draws = batches(count, length, generator)
    pending: list[Tensor] = []
    while True:
        for number in range(1, of_epoch + 1):
            pending.append(next(draws))
            if number % ends == 0:
                yield pending
                pending = []
