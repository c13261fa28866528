import pytest
import torch

from methods.common.batches import accumulated_batches, batches
from methods.training_length import Epochs


@pytest.mark.parametrize(
    ("count", "size", "sizes", "full_only"),
    [(10, 4, [4, 4, 2], [4, 4]), (8, 4, [4, 4], [4, 4]), (3, 8, [3], [3]), (1, 1, [1], [1])],
)
def test_an_epoch_takes_each_image_at_most_once(count, size, sizes, full_only):
    for drop_last, expected in ((False, sizes), (True, full_only)):
        length = Epochs(1, size, drop_last=drop_last)
        assert length.batches(count) == len(expected)
        draws = batches(count, length, torch.Generator().manual_seed(0))
        for _ in range(3):
            epoch = [next(draws) for _ in expected]
            assert [len(batch) for batch in epoch] == expected
            assert len(set(torch.cat(epoch).tolist())) == sum(expected)


def test_epochs_have_orders_of_their_own_and_seeds_too():
    def orders(seed):
        draws = batches(20, Epochs(1, 20), torch.Generator().manual_seed(seed))
        return [next(draws).tolist() for _ in range(2)]

    assert orders(0) == orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(10, [[2, 2], [2, 2], [2, 2, 2], [2, 2]]), (8, [[2, 2], [2, 2], [2, 2]]), (2, [[2], [2]]), (3, [[2, 1], [2, 1]])],
)
def test_what_an_epoch_has_left_over_belongs_to_the_next(count, sizes):
    length = Epochs(1, 2, accumulated_batches=2)
    draws = accumulated_batches(count, length, torch.Generator().manual_seed(0))
    assert [[len(batch) for batch in next(draws)] for _ in sizes] == sizes
    assert length.steps(count) == max(1, -(-count // 2) // 2)
