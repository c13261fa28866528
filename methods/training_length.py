"""How long a method trains: for some optimiser steps, or for some passes over however many training images."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Epochs:
    """A training length in passes over the training images.

    Attributes:
        count: Passes.
        batch_size: Images per batch; the last batch of a pass takes those that are left.
        drop_last: Leave these out instead, unless they are all there are.
        accumulated_batches: Batches of a pass per optimiser step; a pass has at least one step.
        networks: How many are trained so long, one after the other.
    """

    count: int
    batch_size: int
    drop_last: bool = False
    accumulated_batches: int = 1
    networks: int = 1

    def batches(self, images: int) -> int:
        """Batches of a pass over so many images."""
        return max(1, images // self.batch_size) if self.drop_last else -(-images // self.batch_size)

    def steps(self, images: int) -> int:
        """Optimiser steps of all passes over so many images."""
        return self.networks * self.count * self.steps_of_pass(images)

    def steps_of_pass(self, images: int) -> int:
        """Optimiser steps of one pass over so many images."""
        return max(1, self.batches(images) // self.accumulated_batches)


TrainingLength = int | Epochs
"""Optimiser steps, or epochs; at training scale 1."""
_ONE_STEP = 1e-6
"""Passes that come to a single optimiser step, the least there are, over however many images."""


def optimiser_steps(length: TrainingLength, images: int) -> int:
    """Optimiser steps of a training length on so many training images, at training scale 1."""
    return length.steps(images) if isinstance(length, Epochs) else length


def scaled_steps(steps: int, scale: float) -> int:
    """Optimiser steps at another training scale; at least one."""
    return max(1, round(steps * scale))


def other_length(own: TrainingLength, paper: TrainingLength, scale: float) -> str | None:
    """What a row says of a training length at a scale, if it is not the paper's: ``3.2 of 160 epochs``.

    Raises:
        TypeError: One is in steps and the other in epochs.
    """
    if isinstance(own, Epochs) and isinstance(paper, Epochs):
        passes = own.count * scale
        if passes == paper.count:
            return None
        return f"{passes:g} of {paper.count} epochs" if passes > _ONE_STEP else f"1 step of {paper.count} epochs"
    if isinstance(own, Epochs) or isinstance(paper, Epochs):
        raise TypeError(f"the training length is {paper} by default and {own} here: one method counts one or the other")
    steps = scaled_steps(own, scale)
    return None if steps == paper else f"{steps} of {paper} training steps"
