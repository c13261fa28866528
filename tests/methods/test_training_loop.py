from itertools import count

import pytest
import torch

from methods.common.training import RECORDED_LOSSES, REPORT_EVERY, Epoch, train
from methods.detector import FitContext, Progress
from methods.errors import MethodError


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


def test_each_epochs_state_is_shown_at_rest_and_the_training_goes_on_as_if_it_were_not() -> None:
    def fit(observe):
        torch.manual_seed(0)
        module, seen = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5)), []
        module[0].eval()  # a frozen part, which stays so

        def step():
            with torch.no_grad():
                module[0].weight += module[1](torch.randn(2, 2))
            return module[0].weight.sum()

        def look(epoch, shown):
            assert shown is module
            assert not any(part.training for part in shown.modules())
            torch.rand(3)
            seen.append((epoch, shown[0].weight.detach().clone()))

        train(step, 7, FitContext(0, observe=look if observe else None), epoch=Epoch(module, 3))
        assert [part.training for part in module] == [False, True]
        return module[0].weight, seen

    (observed, seen), (plain, nothing) = fit(observe=True), fit(observe=False)
    assert torch.equal(observed, plain)
    assert [epoch for epoch, _ in seen] == [1, 2, 7 / 3]
    assert torch.equal(seen[-1][1], plain)
    assert not torch.equal(seen[0][1], seen[1][1])
    assert nothing == []


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training_and_names_its_step(wrong):
    numbers = count(1)

    def step():
        return torch.tensor(wrong if (number := next(numbers)) >= 7 else float(number))

    with pytest.raises(MethodError, match=rf"its loss is {wrong} at step 7 of 200 \(student\)\n  Look at"):
        train(step, 200, FitContext(0), "student")
    assert next(numbers) <= 12
