import pytest
import torch
import torch.nn.functional as F

from methods.common.patch_networks import LAYERS, PatchNetwork, patch_stride

SIZES = pytest.mark.parametrize("patch_size", LAYERS)


def network(patch_size, stride, state=None):
    torch.manual_seed(0)
    made = PatchNetwork(patch_size, stride).double()
    if state is not None:
        made.load_state_dict(state)
    return made.requires_grad_(False)


def images(height, width):
    return torch.rand(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def literal(patch_size, weights, patch):
    """The layers of the table, one after another, on patches (N, 3, p, p)."""
    features, left = patch, iter(weights)
    for number, layer in enumerate(LAYERS[patch_size]):
        if layer is None:
            features = F.max_pool2d(features, 2)
            continue
        features = F.conv2d(features, next(left), next(left))
        if number < len(LAYERS[patch_size]) - 1:
            features = torch.where(features > 0, features, 5e-3 * features)
    return features


@SIZES
def test_a_patch_has_one_descriptor(patch_size):
    patch_network = network(patch_size, patch_stride(patch_size))
    patch = images(patch_size, patch_size)
    descriptor = patch_network.layers(patch)
    assert descriptor.shape == (1, 128, 1, 1)
    torch.testing.assert_close(descriptor, literal(patch_size, patch_network.parameters(), patch))


@SIZES
def test_dense_descriptors_are_those_of_each_pixels_patch(patch_size):
    dense = network(patch_size, 1)
    image, half = images(35, 36), patch_size // 2
    descriptors = dense(image)
    assert descriptors.shape == (1, 128, 35, 36)
    rows = F.pad(image, (half,) * 4, mode="reflect").unfold(2, patch_size, 1).unfold(3, patch_size, 1)
    for row, column in [(0, 0), (0, 35), (34, 0), (34, 35), *((number, number) for number in range(1, 34, 4))]:
        patch = rows[:, :, row, column]
        expected = literal(patch_size, dense.parameters(), patch)[:, :, 0, 0]
        torch.testing.assert_close(descriptors[:, :, row, column], expected, rtol=0, atol=1e-14)


@pytest.mark.slow
@SIZES
def test_dense_descriptors_are_those_of_every_pixels_patch(patch_size):
    dense = network(patch_size, 1)
    patch_network = network(patch_size, patch_stride(patch_size), dense.state_dict())
    image, half = images(33, 34), patch_size // 2
    descriptors = dense(image)
    columns = F.pad(image, (half,) * 4, mode="reflect").unfold(2, patch_size, 1).unfold(3, patch_size, 1)
    for row in range(33):
        expected = patch_network.layers(columns[0, :, row].transpose(0, 1))[:, :, 0, 0]
        torch.testing.assert_close(descriptors[0, :, row].T, expected, rtol=0, atol=1e-14)


@SIZES
@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_stride_takes_every_so_many_of_them(patch_size, stride):
    dense = network(patch_size, 1)
    image = images(40, 48)
    expected = dense(image)[:, :, stride // 2 :: stride, stride // 2 :: stride]
    torch.testing.assert_close(network(patch_size, stride, dense.state_dict())(image), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("patch_size", "count"), [(17, 2_996_480), (33, 1_616_000), (65, 1_386_624)])
def test_parameters_are_those_of_the_tables(patch_size, count):
    assert sum(parameter.numel() for parameter in PatchNetwork(patch_size).parameters()) == count
