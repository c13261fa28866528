import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import nn

from methods.common.resampling import Resize, Separable, bilinear_matrix, box_matrix, gaussian_matrix

SIZES = [(5, 12), (12, 5), (1, 7), (8, 8), (63, 127)]
FORMATS = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_bilinear_rows_sum_to_one_and_have_two_neighbours(source, target):
    matrix = bilinear_matrix(source, target)
    assert matrix.shape == (target, source)
    torch.testing.assert_close(matrix.sum(1), torch.ones(target, dtype=torch.float64))
    assert ((matrix != 0).sum(1) <= 2).all()


@pytest.mark.parametrize(("size", "sigma"), [(50, 4.0), (9, 4.0), (31, 0.5)])
def test_the_gaussian_is_scipys(size, sigma):
    """Also where the kernel is longer than the map."""
    values = np.random.default_rng(0).standard_normal(size)
    expected = ndimage.gaussian_filter(values, sigma)
    np.testing.assert_allclose(gaussian_matrix(size, sigma).numpy() @ values, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("size", "side"), [(20, 5), (9, 7), (2, 7)])
def test_the_box_is_scipys(size, side):
    values = np.random.default_rng(0).standard_normal(size)
    expected = ndimage.uniform_filter1d(values, side)
    np.testing.assert_allclose(box_matrix(size, side).numpy() @ values, expected, rtol=1e-12, atol=1e-13)


@FORMATS
@pytest.mark.parametrize(("source", "target"), [((5, 9), (12, 7)), ((1, 4), (3, 3))])
def test_both_ways_are_pytorchs_interpolation_with_its_gradient(source, target, memory_format):
    """On a CPU interpolation itself stands in for the products that every other device computes."""
    torch.manual_seed(0)
    maps = torch.randn(2, 6, *source).contiguous(memory_format=memory_format).requires_grad_()
    expected = F.interpolate(maps, target, mode="bilinear")
    outside = torch.randn_like(expected)
    gradient = torch.autograd.grad(expected, maps, outside)
    rows, columns = (bilinear_matrix(*sides) for sides in zip(source, target, strict=True))
    for resize in (Resize(source, target), Separable(rows, columns)):
        found = resize(maps)
        torch.testing.assert_close(found, expected)
        assert found.is_contiguous(memory_format=memory_format)
        torch.testing.assert_close(torch.autograd.grad(found, maps, outside), gradient)


def test_a_device_other_than_the_cpu_multiplies_matrices():
    maps = torch.empty(2, 6, 5, 9, device="meta").contiguous(memory_format=torch.channels_last)
    resize = Resize((5, 9), (12, 7)).to("meta")
    with torch.profiler.profile() as profile:
        resized = resize(maps)
    assert resized.shape == (2, 6, 12, 7)
    names = {event.key for event in profile.key_averages()}
    assert "aten::bmm" in names
    assert not any("upsample" in name or "copy" in name for name in names)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_any_number_of_maps_is_resized_and_smoothed(leading):
    maps = torch.randn(*leading, 7, 6)
    found = Resize((7, 6), (20, 30), sigma=1.5)(maps)
    resized = F.interpolate(maps.reshape(-1, 1, 7, 6), (20, 30), mode="bilinear").view(*leading, 20, 30)
    expected = ndimage.gaussian_filter(resized.double().numpy(), 1.5, axes=(-2, -1))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_matrices_move_with_the_module_and_are_not_saved():
    resize = nn.Sequential(Resize((3, 3), (6, 6), sigma=1.0))
    assert resize.state_dict() == {}
    assert {buffer.device.type for buffer in resize.to("meta").buffers()} == {"meta"}
