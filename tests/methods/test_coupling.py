import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.common.coupling import AffineCoupling, _repeat_border, permutation


def coupling(channels=5, kernel=3, clamp=torch.tanh):
    torch.manual_seed(0)
    block = AffineCoupling(channels, 4, 6, kernel, clamp).double()
    for subnet in (block.of_first, block.of_second):
        torch.nn.init.constant_(subnet.gamma, 0.8)
    return block


FEATURES = torch.randn(2, 5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
CONDITION = torch.randn(2, 4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_log_determinant_is_that_of_the_jacobian():
    block = coupling()
    transformed, log_determinant = block(FEATURES, CONDITION)
    assert (transformed.shape, log_determinant.shape) == (FEATURES.shape, (2, 3, 2))
    for image in range(2):
        one, condition = FEATURES[image : image + 1], CONDITION[image : image + 1]
        jacobian = torch.autograd.functional.jacobian(lambda x, c=condition: block(x, c)[0].flatten(), one)
        torch.testing.assert_close(log_determinant[image].sum(), jacobian.view(30, 30).slogdet().logabsdet)


def test_inverse():
    block = coupling()
    torch.testing.assert_close(block.inverse(block(FEATURES, CONDITION)[0], CONDITION), FEATURES)


def test_each_half_is_scaled_and_shifted_by_the_other():
    block = coupling()
    first, second = FEATURES[:, :2], FEATURES[:, 2:]

    def scale_and_shift(subnet, half):
        hidden, last = subnet.convolutions
        padded = F.pad(torch.cat([half, CONDITION], 1), (1, 1, 1, 1), "replicate")
        values = last(F.pad(F.relu(hidden(padded)), (1, 1, 1, 1), "replicate")) * subnet.gamma
        return torch.exp(torch.tanh(values[:, : values.shape[1] // 2])), values[:, values.shape[1] // 2 :]

    scale, shift = scale_and_shift(block.of_second, second)
    first = scale * first + shift
    scale, shift = scale_and_shift(block.of_first, first)
    expected = torch.cat([first, scale * second + shift], 1)
    torch.testing.assert_close(block(FEATURES, CONDITION)[0], expected)


def test_a_new_coupling_changes_nothing_but_cuts_off():
    block = AffineCoupling(4, 4, 3, 1, torch.tanh)
    features = torch.tensor([2e6, -2e6, 3.0, -4.0]).view(1, 4, 1, 1)
    transformed, log_determinant = block(features, torch.ones(1, 4, 1, 1))
    assert transformed.flatten().tolist() == [1e6, -1e6, 3, -4]
    assert log_determinant.item() == 0
    halved = block.half()(features.clamp(-6e4, 6e4).half(), torch.ones(1, 4, 1, 1).half())[0]
    assert halved.isfinite().all()


@pytest.mark.parametrize("margin", [0, 1, 2])
def test_repeated_borders(margin):
    assert torch.equal(_repeat_border(FEATURES, margin), F.pad(FEATURES, (margin,) * 4, "replicate"))


def test_permutations_are_numpys_and_fixed():
    np.random.seed(3)  # noqa: NPY002 - the generator whose stream is meant
    assert permutation(304, 3).tolist() == np.random.permutation(304).tolist()  # noqa: NPY002
    assert permutation(304, 3).tolist() != permutation(304, 2).tolist()
