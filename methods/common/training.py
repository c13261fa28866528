"""A training loop of a length fixed in advance, with progress and a thinned loss."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.detector import FitContext, Progress
from methods.errors import MethodError

RECORDED_LOSSES = 500
REPORT_EVERY = 5


@dataclass(frozen=True, eq=False)
class Epoch:
    """What a training has to show at the end of each epoch.

    Attributes:
        module: The detector's module as it will be when the training ends.
        steps: Optimiser steps of an epoch.
    """

    module: nn.Module
    steps: int


def train(
    step: Callable[[], Tensor], steps: int, context: FitContext, stage: str = "train", epoch: Epoch | None = None
) -> list[tuple[int, float]]:
    """Run optimiser steps and keep the last state.

    Only losses that are recorded are fetched from their device, several at a time: the host waits for it each time.

    Args:
        step: Runs the next optimiser step and returns its loss, a scalar on any device, detached.
        steps: How many.
        context: Is told how far the training is, and shown each epoch's state if it observes.
        stage: What it is called there.
        epoch: What is shown; ``None`` for a stage in which the module is no detector yet.

    Returns:
        Pairs of step, counted from 1, and its loss: of the first and the last step, and of every so many between
        them that there are fewer than twice ``RECORDED_LOSSES``.

    Raises:
        MethodError: A recorded loss is NaN or infinite; names the first of them and its step.
    """
    losses: list[tuple[int, float]] = []
    pending: dict[int, Tensor] = {}
    interval = max(1, steps // RECORDED_LOSSES)
    for number in range(1, steps + 1):
        loss = step()
        if number % interval == 0 or number in (1, steps):
            pending[number] = loss
        if number % REPORT_EVERY == 0 or number == steps:
            if pending:
                fetched = list(zip(pending, torch.stack(list(pending.values())).tolist(), strict=True))
                _check_finite(fetched, steps, stage)
                losses += fetched
                pending.clear()
            context.progress(Progress(stage, number, steps, losses[-1][1]))
        if context.observe is not None and epoch is not None and (number % epoch.steps == 0 or number == steps):
            with _at_rest(epoch.module):
                context.observe(number / epoch.steps, epoch.module)
    return losses


def _check_finite(losses: Sequence[tuple[int, float]], steps: int, stage: str) -> None:
    """A network whose loss is no number stays so: its maps would be NaN, hours later."""
    for number, loss in losses:
        if not math.isfinite(loss):
            raise MethodError(
                f"the training diverged: its loss is {loss} at step {number} of {steps} ({stage})\n"
                "  Look at the images, or take a smaller learning rate or another seed."
            )


@contextmanager
def _at_rest(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and afterwards each part of it, and the random generators, back."""
    modes = {part: part.training for part in module.modules()}
    devices = {tensor.device for tensor in module.parameters() if tensor.is_cuda}
    try:
        with torch.random.fork_rng(devices):
            module.eval()
            yield
    finally:
        for part, training in modes.items():
            part.training = training
