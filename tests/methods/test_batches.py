import pytest
import torch

from methods.common.batches import batches_per_epoch, epochs


@pytest.mark.parametrize(
    ("count", "size", "sizes", "full_only"),
    [(10, 4, [4, 4, 2], [4, 4]), (8, 4, [4, 4], [4, 4]), (3, 8, [3], [3]), (1, 1, [1], [1])],
)
def test_an_epoch_takes_each_image_at_most_once(count, size, sizes, full_only):
    for drop_last, expected in ((False, sizes), (True, full_only)):
        assert batches_per_epoch(count, size, drop_last=drop_last) == len(expected)
        draws = epochs(count, size, torch.Generator().manual_seed(0), drop_last=drop_last)
        for _ in range(3):
            batches = [next(draws) for _ in expected]
            assert [len(batch) for batch in batches] == expected
            assert len(set(torch.cat(batches).tolist())) == sum(expected)


def test_epochs_have_orders_of_their_own_and_seeds_too():
    def orders(seed):
        draws = epochs(20, 20, torch.Generator().manual_seed(seed), drop_last=False)
        return [next(draws).tolist() for _ in range(2)]

    assert orders(0) == orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1]
