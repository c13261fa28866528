import pytest
import torch

from methods.efficientad.fast_step import training_features, training_outputs
from methods.efficientad.pdn import RECEPTIVE_FIELD, patch_description_network

BOTH = pytest.mark.parametrize("size", ["S", "M"])


@BOTH
def test_one_feature_vector_sees_33_by_33_pixels(size):
    network = patch_description_network(size, 1, padding=False)
    for parameter in network.parameters():
        parameter.data.abs_().add_(1e-3)  # so that nothing cancels and no ReLU is closed
    image = torch.ones(1, 3, 41, 41, requires_grad=True)
    features = network(image)
    assert features.shape[2:] == (3, 3)
    features[0, 0, 1, 1].backward()
    seen = image.grad[0, 0].nonzero()
    assert (seen.amin(0).tolist(), seen.amax(0).tolist()) == ([4, 4], [4 + RECEPTIVE_FIELD - 1] * 2)


@pytest.mark.slow
@BOTH
def test_padding_changes_the_border_only(size):
    padded = patch_description_network(size, 384, padding=True)
    unpadded = patch_description_network(size, 384, padding=False)
    unpadded.load_state_dict(padded.state_dict())
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        whole, inner = padded(image), unpadded(image)
    assert whole.shape[2:] == (32, 32)
    assert inner.shape[2:] == (24, 24)
    torch.testing.assert_close(whole[:, :, 4:-4, 4:-4], inner, atol=1e-6, rtol=1e-4)


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("padding", [False, True])
def test_training_features_and_their_gradients_are_those_of_the_layers(size, padding):
    network = patch_description_network(size, 8, padding=padding).double()
    images = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    expected, found = network[:-1](images), training_features(network, images, padding=padding)
    torch.testing.assert_close(found, expected)
    outside = torch.randn_like(expected)
    parameters = list(network[:-1].parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found, parameters, outside), torch.autograd.grad(expected, parameters, outside)
    )


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("padding", [False, True])
def test_training_outputs_are_the_networks(size, padding):
    network = patch_description_network(size, 8, padding=padding).double()
    images = torch.randn(1, 3, 64, 48, dtype=torch.float64)
    torch.testing.assert_close(training_outputs(network, images, padding=padding), network(images))
