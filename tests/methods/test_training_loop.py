from itertools import chain, count, islice

import pytest
import torch

from methods.common.training import RECORDED_LOSSES, REPORT_EVERY, epoch_batches, train
from methods.detector import FitContext, Progress
from methods.training_length import Epochs


def run(steps, stage="train"):
    """Train with a loss that is the step's number."""
    numbers, reports = count(1), []
    losses = train(lambda: torch.tensor(float(next(numbers))), steps, FitContext(0, progress=reports.append), stage)
    assert next(numbers) == steps + 1
    return losses, reports


@pytest.mark.parametrize("steps", [1, 2, 7, RECORDED_LOSSES, 2 * RECORDED_LOSSES - 1, 10 * RECORDED_LOSSES + 3])
def test_losses_are_thinned_between_the_first_and_the_last_step(steps):
    losses, _ = run(steps)
    assert all(loss == step for step, loss in losses)
    recorded = [step for step, _ in losses]
    assert recorded == sorted(set(recorded))
    assert recorded[0] == 1
    assert recorded[-1] == steps
    assert min(steps, RECORDED_LOSSES) <= len(recorded) < 2 * RECORDED_LOSSES


def test_progress_carries_the_last_loss_recorded():
    steps = 2 * RECORDED_LOSSES + 1
    losses, reports = run(steps, "student")
    assert [report.done for report in reports] == [*range(REPORT_EVERY, steps, REPORT_EVERY), steps]
    assert reports[0] == Progress("student", REPORT_EVERY, steps, dict(losses)[REPORT_EVERY - 1])
    assert reports[-1] == Progress("student", steps, steps, steps)


@pytest.mark.parametrize(
    ("images", "size", "drop_last", "lengths"),
    [
        (1, 8, False, [1]),
        (8, 8, False, [8]),
        (11, 4, False, [4, 4, 3]),
        (1, 8, True, [1]),
        (8, 8, True, [8]),
        (11, 4, True, [4, 4]),
    ],
)
def test_an_epoch_takes_each_image_once_or_leaves_out_the_last(images, size, drop_last, lengths):
    length = Epochs(2, size, drop_last)
    assert length.batches(images) == len(lengths)
    batches = list(islice(epoch_batches(images, length, torch.Generator().manual_seed(0)), 2 * len(lengths)))
    assert [len(batch) for batch in batches] == 2 * lengths
    epochs = [list(chain(*part)) for part in (batches[: len(lengths)], batches[len(lengths) :])]
    assert [len(set(epoch)) for epoch in epochs] == [sum(lengths)] * 2
    assert images < 11 or epochs[0] != epochs[1]
