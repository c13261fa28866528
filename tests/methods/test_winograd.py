import numpy as np
import pytest
import torch
import torch.nn.functional as F

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
    assert type(found.grad_fn).__name__ == "_ConvolutionBackward"
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


def under_bf16(function, maps, weight, bias):
    with torch.autocast("cpu", torch.bfloat16):
        return function(maps, weight, bias)


@pytest.fixture
def amx(monkeypatch):
    """Say whether the CPU has AMX."""
    return lambda present: monkeypatch.setattr(winograd, "_has_amx", lambda: present)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 19, 23), (1, 4, 6), (0, 19, 23)])
@pytest.mark.parametrize("side", [3, 4])
def test_under_bf16_outputs_are_pytorchs_and_gradients_close(shape, side, dtype, threads, amx):
    amx(False)
    torch.manual_seed(0)
    maps = torch.randn(shape[0], 128, *shape[1:], dtype=dtype).relu().to(memory_format=torch.channels_last)
    weight, bias = torch.randn(160, 128, side, side) / (128 * side**2) ** 0.5, torch.randn(160)
    arguments = [tensor.requires_grad_() for tensor in (maps, weight, bias)]
    doubles = [tensor.detach().double().requires_grad_() for tensor in arguments]
    found, expected = under_bf16(winograd.conv2d, *arguments), F.conv2d(*doubles)
    assert type(found.grad_fn).__name__ == "_Bf16ConvolutionBackward"
    assert torch.equal(found, under_bf16(F.conv2d, *arguments))
    gradient = torch.randn_like(expected)
    for argument, value, reference, bound in zip(
        arguments,
        torch.autograd.grad(found, arguments, gradient.bfloat16()),
        torch.autograd.grad(expected, doubles, gradient),
        (0.06, 0.06, 0.01),
        strict=True,
    ):
        assert value.dtype == argument.dtype
        assert value.shape == reference.shape
        assert (value - reference).norm() <= bound * reference.norm()


@pytest.mark.parametrize("side", [3, 4])
def test_bf16_tiles_are_rounded_to_nearest_and_read_as_they_are(side):
    maps = torch.randn(32, 30, 19, generator=torch.Generator().manual_seed(side)).bfloat16()
    maps[0, 3, 5], maps[1, 6, 7], maps[2, 9, 2] = torch.inf, torch.nan, -torch.inf
    data = winograd.transforms(side).data
    shape = (*winograd._tiles_shape(30 - side + 1, 19 - side + 1, side), 32)
    exact, rounded = torch.empty(shape), torch.empty(shape, dtype=torch.bfloat16)
    winograd._to_tiles(maps.float(), data, exact)
    winograd._to_tiles(maps, data, rounded)
    torch.testing.assert_close(rounded, exact.bfloat16(), rtol=0, atol=0, equal_nan=True)
    assert rounded.isnan().any()
    sums = torch.zeros(2, 32, 30, 19).to(memory_format=torch.channels_last)
    winograd._add_tiles(rounded, data.T, sums[0])
    winograd._add_tiles(rounded.float(), data.T, sums[1])
    torch.testing.assert_close(sums[0], sums[1], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("present", "dtype", "gradients"),
    [(True, torch.bfloat16, True), (False, torch.float16, True), (False, torch.bfloat16, False)],
)
def test_other_autocast_is_left_to_pytorch(present, dtype, gradients, amx):
    amx(present)
    maps, weight, bias = torch.randn(1, 128, 9, 9), torch.randn(128, 128, 3, 3), torch.randn(128)
    with torch.autocast("cpu", dtype), torch.set_grad_enabled(gradients):
        found = winograd.conv2d(maps, weight.requires_grad_(), bias)
        assert torch.equal(found, F.conv2d(maps, weight, bias))
    assert type(found.grad_fn).__name__ == ("ConvolutionBackward0" if gradients else "NoneType")


def test_a_repetition_has_the_same_bits(threads):
    maps, weight, bias = torch.randn(2, 128, 30, 30), torch.randn(128, 128, 4, 4), torch.randn(128)
    assert torch.equal(winograd.conv2d(maps, weight, bias), winograd.conv2d(maps, weight, bias))
