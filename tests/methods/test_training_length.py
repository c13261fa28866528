import pytest

from methods.training_length import Epochs, optimiser_steps, other_length, scaled_steps


@pytest.mark.parametrize(("images", "steps"), [(1, 3), (8, 3), (9, 6), (60, 24)])
def test_an_epoch_is_as_many_steps_as_there_are_batches(images, steps):
    assert optimiser_steps(Epochs(3, batch_size=8), images) == steps
    assert optimiser_steps(7, images) == 7


def test_at_least_one_step_is_left_of_a_training():
    assert [scaled_steps(100, scale) for scale in (2, 1, 0.029, 1e-6)] == [200, 100, 3, 1]


def test_what_a_row_says_of_another_length():
    assert other_length(200, 200, 1) is None
    assert other_length(200, 200, 0.01) == "2 of 200 training steps"
    assert other_length(50, 200, 4) is None
    assert other_length(Epochs(160, 8), Epochs(160, 8), 1) is None
    assert other_length(Epochs(160, 4), Epochs(160, 8), 0.02) == "3.2 of 160 epochs"
    assert other_length(Epochs(20, 8), Epochs(160, 8), 1e-9) == "1 step of 160 epochs"
    assert other_length(Epochs(80, 8), Epochs(160, 8), 2) is None


def test_passes_without_incomplete_batches_with_accumulation_and_of_several_networks():
    assert [Epochs(3, 8, drop_last=True).steps(images) for images in (1, 8, 17)] == [3, 3, 6]
    assert [Epochs(3, 8, accumulated_batches=2).steps(images) for images in (1, 16, 17, 33)] == [3, 3, 3, 6]
    assert Epochs(3, 8, networks=2).steps(9) == 12
