import pytest
import torch
import torch.nn.functional as F
from thin_efficientad import features_by_one_convolution, noise, thin_network

from methods.common.precision import set_precision
from methods.efficientad.networks import EfficientAdNetwork

HALVES = pytest.mark.parametrize("precision", ["bf16", "fp16"])


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = thin_network().eval().requires_grad_(False)
    network.quantiles.copy_(torch.tensor([[0.9, 1.3], [0.05, 0.4]]))
    return network


@pytest.mark.parametrize(("size", "millions"), [("S", 8.058), ("M", 20.738)])
def test_parameters_are_those_of_the_paper(size, millions):
    with torch.device("meta"):
        network = EfficientAdNetwork(size, padding=False)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == millions


@pytest.mark.slow
@pytest.mark.parametrize(("size", "giga"), [("S", 76), ("M", 235)])
def test_floating_point_operations_are_those_of_the_paper(size, giga):
    """Of the convolutions; the paper's numbers are rounded."""
    with torch.device("meta"):
        network = EfficientAdNetwork(size, padding=False).eval()
        image = torch.empty(1, 3, 256, 256)
    with torch.no_grad(), torch.profiler.profile(with_flops=True) as profile:
        network(image)
    of_convolutions = sum(event.flops or 0 for event in profile.key_averages() if event.key == "aten::conv2d")
    assert round(of_convolutions / 1e9) == giga


@pytest.mark.parametrize("padding", [False, True])
def test_all_networks_agree_on_the_grid(padding):
    with torch.device("meta"):
        network = EfficientAdNetwork("S", padding=padding).eval()
        image = torch.zeros(1, 3, 256, 256)
        side = 64 if padding else 56
        assert network.teacher(image).shape == (1, 384, side, side)
        assert network.student(image).shape == (1, 768, side, side)
        assert network.autoencoder(image).shape == (1, 384, side, side)


def test_resized_maps_put_a_feature_where_its_patch_is():
    unpadded, padded = (thin_network(padding=padding) for padding in (False, True))
    low = torch.zeros(1, 56, 56)
    low[0, 10, 20] = 1
    whole = torch.zeros(1, 64, 64)
    whole[0, 14, 24] = 1
    torch.testing.assert_close(unpadded.resize(low), padded.resize(whole))


@pytest.mark.parametrize("border", ["replicate", "zeros"])
def test_maps_are_padded_as_the_option_says(border):
    maps = torch.rand(2, 56, 56, generator=torch.Generator().manual_seed(0))
    padding = {"mode": "replicate"} if border == "replicate" else {}
    expected = F.interpolate(F.pad(maps[None], (4, 4, 4, 4), **padding), (256, 256), mode="bilinear")[0]
    torch.testing.assert_close(thin_network(map_border=border).resize(maps), expected)


@pytest.mark.parametrize("border", ["replicate", "zeros"])
def test_maps_and_scores_are_algorithm_2s(border):
    """Lines 1-11, the long way round; other implementations resize after the normalisation."""
    torch.manual_seed(0)
    network = thin_network(map_border=border).eval().requires_grad_(False)
    network.quantiles.copy_(torch.tensor([[0.9, 1.3], [0.05, 0.4]]))
    images = network.prepare(noise(2))
    normalised = (network.teacher(images) - network.mean) / network.std
    student = network.student(images)
    structural = (normalised - student[:, :384]).square().mean(1)
    logical = (network.autoencoder(images) - student[:, 384:]).square().mean(1)
    combined = 0
    for maps, (low, high) in zip((structural, logical), network.quantiles, strict=True):
        if border == "replicate":
            resized = F.interpolate(F.pad(maps[None], (4,) * 4, mode="replicate"), (256, 256), mode="bilinear")[0]
            combined = combined + 0.5 * 0.1 * (resized - low) / (high - low)
        else:
            rated = F.pad(0.1 * (maps - low) / (high - low), (4,) * 4)
            combined = combined + 0.5 * F.interpolate(rated[None], (256, 256), mode="bilinear")[0]
    maps, scores = network(noise(2))
    assert maps.dtype == scores.dtype == torch.float32
    torch.testing.assert_close(maps, combined, rtol=1e-4, atol=1e-5)
    assert torch.equal(scores, maps.flatten(1).max(1).values)


def test_of_separate_students_each_has_its_map():
    """The equations of sections 3.2 and 3.3, in float64."""
    torch.manual_seed(0)
    network = EfficientAdNetwork("S", padding=False, shared_student=False).eval().double()
    network.autoencoder = features_by_one_convolution(4).double()
    images = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        local = (network.teacher(images) - network.student.of_teacher(images)).square().sum(1) / 384
        overall = (network.autoencoder(images) - network.student.of_autoencoder(images)).square().sum(1) / 384
        torch.testing.assert_close(network.feature_maps(images).double(), torch.stack([local, overall]))


def test_dropout_is_the_probability_of_all_the_decoders_layers():
    for options, expected in (({}, 0.2), ({"dropout": 0.0}, 0.0)):
        network = EfficientAdNetwork("S", padding=False, **options)
        assert [layer.p for layer in network.modules() if isinstance(layer, torch.nn.Dropout)] == [expected] * 6


def test_levels_and_fractions_give_the_same_maps(network):
    maps, scores = network(noise(1))
    for images in (noise(1).float() / 255, noise(1).double() / 255):
        other, other_scores = network(images)
        torch.testing.assert_close(other, maps, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other_scores, scores, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@HALVES
def test_half_precision_is_of_the_networks_only(precision, network):
    maps, _ = network(noise(1))
    set_precision(network, precision)
    half, scores = network(noise(1))
    assert half.dtype == scores.dtype == torch.float32
    assert not torch.equal(half, maps)
    assert (half - maps).abs().max() < 0.05 * (maps.max() - maps.min())
    types = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    assert {types.pop(name) for name in ("mean", "std", "quantiles")} == {torch.float32}
    assert {dtype.itemsize for dtype in types.values()} == {2}


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2])
def test_an_export_gives_the_same_maps(batch, network):
    images = noise(batch)
    exported = torch.export.export(network, (images,), strict=False).module()
    for found, expected in zip(exported(images), network(images), strict=True):
        assert torch.equal(found, expected)
