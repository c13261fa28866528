import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.efficientad import winograd


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("taps", [3, 4])
def test_the_matrices_are_an_exact_filter(taps):
    matrices = winograd.transforms(taps)
    tile, kernel = np.random.default_rng(0).standard_normal((2, winograd.OUTPUTS + taps - 1))
    kernel = kernel[:taps]
    found = matrices.inverse @ ((matrices.kernel @ kernel) * (matrices.data @ tile))
    np.testing.assert_allclose(found, np.correlate(tile, kernel, "valid"), rtol=1e-12, atol=1e-12)


# Whole tiles, cut ones, a single tile, fewer rows of tiles than threads, an empty batch.
@pytest.mark.parametrize("shape", [(2, 19, 23), (1, 20, 18), (1, 4, 6), (1, 11, 40), (0, 19, 23)])
@pytest.mark.parametrize("side", [3, 4])
def test_outputs_and_gradients_are_those_of_a_direct_convolution(shape, side, threads):
    torch.manual_seed(0)
    maps = torch.randn(shape[0], 128, *shape[1:]).relu()
    weight, bias = torch.randn(160, 128, side, side) / (128 * side**2) ** 0.5, torch.randn(160)
    arguments = [tensor.requires_grad_() for tensor in (maps, weight, bias)]
    doubles = [tensor.detach().double().requires_grad_() for tensor in arguments]
    found, expected = winograd.conv2d(*arguments), F.conv2d(*doubles)
    assert type(found.grad_fn) is not type(F.conv2d(*arguments).grad_fn)
    assert found.is_contiguous(memory_format=torch.channels_last)
    gradient = torch.randn_like(expected)
    derivatives = torch.autograd.grad(found, arguments, gradient.float())
    for name, value, reference in zip(
        ("output", "maps", "weight", "bias"),
        (found, *derivatives),
        (expected, *torch.autograd.grad(expected, doubles, gradient)),
        strict=True,
    ):
        assert value.dtype == torch.float32
        assert value.shape == reference.shape
        if reference.numel():
            error = (value - reference).square().mean().sqrt() / reference.square().mean().sqrt().clamp_min(1e-12)
            assert error < 1e-5, name


def test_only_the_gradients_asked_for_are_computed():
    maps, weight, bias = torch.randn(1, 128, 12, 12), torch.randn(128, 128, 3, 3), torch.randn(128)
    found = winograd.conv2d(maps.requires_grad_(), weight, bias)
    assert found.grad_fn.saved_tensors[0] is None  # no tiles are kept for the weights' gradient
    found.sum().backward()
    expected = maps.detach().requires_grad_()
    F.conv2d(expected, weight, bias).sum().backward()
    torch.testing.assert_close(maps.grad, expected.grad, atol=1e-3, rtol=1e-4)
    with torch.no_grad():
        assert not winograd.conv2d(maps, weight.requires_grad_(), bias).requires_grad


@pytest.mark.parametrize(
    ("channels", "side", "dtype"),
    [(3, 4, torch.float32), (128, 1, torch.float32), (128, 5, torch.float32), (128, 3, torch.float64)],
)
def test_other_convolutions_are_left_to_pytorch(channels, side, dtype):
    maps, weight = torch.randn(1, channels, 9, 9, dtype=dtype), torch.randn(128, channels, side, side, dtype=dtype)
    bias = torch.randn(128, dtype=dtype)
    assert torch.equal(winograd.conv2d(maps, weight, bias), F.conv2d(maps, weight, bias))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_convolutions_are_left_to_pytorch(dtype):
    maps, weight, bias = torch.randn(1, 128, 9, 9), torch.randn(128, 128, 3, 3), torch.randn(128)
    with torch.autocast("cpu", dtype):
        found = winograd.conv2d(maps, weight, bias)
        assert torch.equal(found, F.conv2d(maps, weight, bias))
    assert found.dtype == dtype


def test_a_repetition_has_the_same_bits(threads):
    maps, weight, bias = torch.randn(2, 128, 30, 30), torch.randn(128, 128, 4, 4), torch.randn(128)
    assert torch.equal(winograd.conv2d(maps, weight, bias), winograd.conv2d(maps, weight, bias))


@pytest.mark.parametrize("side", [3, 4])
def test_for_inference_kernels_are_transformed_once(side, threads, monkeypatch):
    layer = nn.Conv2d(128, 144, side).requires_grad_(False)
    fast = winograd.InferenceConv2d(layer)
    maps = torch.randn(2, 128, 30, 41)
    expected = winograd.conv2d(maps, layer.weight, layer.bias)
    assert torch.equal(fast(maps), expected)
    monkeypatch.setattr(winograd, "_transform_kernels", None)
    assert torch.equal(fast(maps), expected)
    assert torch.equal(fast.to(torch.bfloat16)(maps.bfloat16()), layer(maps.bfloat16()))
