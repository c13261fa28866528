"""A training loop of a length fixed in advance, with progress and a thinned loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from methods.detector import FitContext, Progress

RECORDED_LOSSES = 500
REPORT_EVERY = 5


def train(step: Callable[[], Tensor], steps: int, context: FitContext, stage: str = "train") -> list[tuple[int, float]]:
    """Run optimiser steps and keep the last state.

    Only losses that are recorded are fetched from their device, several at a time: the host waits for it each time.

    Args:
        step: Runs the next optimiser step and returns its loss, a scalar on any device, detached.
        steps: How many.
        context: Is told how far the training is.
        stage: What it is called there.

    Returns:
        Pairs of step, counted from 1, and its loss: of the first and the last step, and of every so many between
        them that there are fewer than twice ``RECORDED_LOSSES``.
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
                losses += zip(pending, torch.stack(list(pending.values())).tolist(), strict=True)
                pending.clear()
            context.progress(Progress(stage, number, steps, losses[-1][1]))
    return losses
