import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError
from methods.rdpp import losses
from methods.rdpp.detector import Rdpp, RdppConfig, RectangularNoise
from methods.rdpp.networks import Decoder, Projections

SIZE = (64, 96)
SMALL = {"image_size": SIZE, "epochs": 2, "batch_size": 2}
CPU = torch.device("cpu")


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fitted(count=3, **options):
    detector = Rdpp(make_config(Rdpp, "embedded", {**SMALL, **options}))
    with reproducible(0, CPU):
        detector.fit(ImageSet(images(count)), ImageSet(images(1), []), FitContext(seed=0))
    return detector


def levels(seed, count=3):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 4, 6), (6, 2, 3))
    return [torch.randn(count, *shape, dtype=torch.float64, generator=generator) for shape in shapes]


def cosine(a, b):
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_defaults_are_the_papers():
    config = RdppConfig()
    assert (config.backbone, config.image_size, config.epochs, config.batch_size) == (
        "wide_resnet50_2",
        (256, 256),
        200,
        16,
    )
    assert Rdpp.deviations(config, FitContext(0)) == []
    assert Rdpp.deviations(config, FitContext(0, train_scale=0.02)) == ["4 of 200 epochs"]
    assert Rdpp.deviations(make_config(Rdpp, "embedded", {}), FitContext(0)) == ["backbone efficientnet_lite0"]
    length = Rdpp.training_length(config)
    assert [length.steps(images) for images in (1, 16, 17, 33, 209)] == [200, 200, 200, 200, 200 * 7]


def test_sizes_that_the_decoder_cannot_make_are_refused():
    with pytest.raises(MethodError, match="multiple of 32"):
        make_config(Rdpp, None, {"image_size": (100, 64)})


def test_projections_have_the_papers_parameters():
    with torch.device("meta"):
        assert parameters(Projections((256, 512, 1024))) == 15_486_912


@pytest.mark.slow
def test_networks_mirror_the_encoder():
    torch.manual_seed(0)
    encoded = [torch.randn(2, channels, side, side) for channels, side in ((8, 16), (12, 8), (20, 4))]
    decoder = Decoder((8, 12, 20)).eval()
    assert [tuple(level.shape) for level in decoder(encoded)] == [tuple(level.shape) for level in encoded]
    assert [len(stage) for stage in (decoder.bottleneck, *decoder.stages)] == [3, 3, 4, 6]
    assert decoder.bottleneck[0].layers[0].in_channels == 60
    assert sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in decoder.modules()) == 6


def test_distillation_compares_whole_levels():
    encoded, decoded = levels(0), levels(1)
    expected = sum(
        np.mean([1 - cosine(a[n].flatten().numpy(), b[n].flatten().numpy()) for n in range(3)])
        for a, b in zip(encoded, decoded, strict=True)
    )
    assert losses.distillation(encoded, decoded).item() == pytest.approx(expected)


def test_reconstruction_compares_positions():
    noisy, clean = levels(0), levels(1)
    expected = 0
    for a, b in zip(noisy, clean, strict=True):
        rows, others = (level.permute(0, 2, 3, 1).flatten(0, 2).numpy() for level in (a, b))
        expected += np.mean([1 - cosine(row, other) for row, other in zip(rows, others, strict=True)])
    assert losses.reconstruction(noisy, clean).item() == pytest.approx(expected)


def test_contrast_minds_similarity_above_the_margin_only():
    noisy = levels(0)
    clean = [level + shift for level, shift in zip(noisy, levels(1), strict=True)]
    clean[0][0] = -noisy[0][0]
    expected = 0
    for a, b in zip(noisy, clean, strict=True):
        similar = [cosine(a[n].flatten().numpy(), b[n].flatten().numpy()) for n in range(3)]
        expected += np.mean([max(0.0, value - 0.5) for value in similar])
    assert expected > 0.1
    assert losses.contrast(noisy, clean).item() == pytest.approx(expected)


@pytest.mark.slow
def test_losses_of_projections_are_weighted():
    noisy, projected_noisy, projected = levels(0), levels(1), levels(2)
    total = losses.projection(noisy, projected_noisy, projected, torch.Generator().manual_seed(0))
    parts = 0.01 * losses.reconstruction(projected_noisy, projected) + 0.1 * losses.contrast(noisy, projected)
    assert losses.transport(projected, torch.Generator().manual_seed(0)).abs() < 1e-9
    torch.testing.assert_close(total, parts / 1.11)


def test_noise_is_a_corner_of_one_field_in_a_rectangle():
    noise = RectangularNoise((256, 256), 0.2, torch.Generator().manual_seed(0))
    gray = torch.full((5, 3, 256, 256), 128, dtype=torch.uint8)
    added = (noise.add(gray) - 128 / 255).abs() > 1e-7
    for image, mask in zip(noise.add(gray), added, strict=True):
        assert image.shape == (3, 256, 256)
        rows, columns = mask.any(0).any(1).nonzero(), mask.any(0).any(0).nonzero()
        assert 9 <= len(rows) == rows[-1] - rows[0] + 1 <= 31
        assert 9 <= len(columns) == columns[-1] - columns[0] + 1 <= 31
    assert noise.field.shape == (3, 32, 32)
    assert 0.02 < noise.field.abs().max() < 0.5


@pytest.mark.slow
def test_maps_are_smoothed_sums_of_cosine_distances():
    detector = fitted()
    asked = images(2, seed=1)
    module = detector.module()
    with torch.no_grad():
        encoded = module.backbone(asked)
        decoded = module.reconstruction(encoded)
    expected = 0
    for a, b in zip(encoded, decoded, strict=True):
        a, b = a.double(), b.double()
        distance = 1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
        expected += F.interpolate(distance[:, None], SIZE, mode="bilinear", align_corners=True)[:, 0]
    smoothed = torch.stack([torch.from_numpy(gaussian_filter(one.numpy(), 4)) for one in expected])
    prediction = detector.predict(asked)
    torch.testing.assert_close(prediction.maps, smoothed.float(), rtol=1e-4, atol=1e-5)
    assert torch.equal(prediction.scores, prediction.maps.flatten(1).amax(1))


@pytest.mark.slow
def test_training_lowers_the_loss():
    detector = fitted(epochs=6)
    assert detector.training_steps == 6
    assert [step for step, _ in detector.losses] == list(range(1, 7))
    assert detector.losses[-1][1] < detector.losses[0][1]


def test_before_the_fit():
    with pytest.raises(RuntimeError, match="has not been fitted"):
        Rdpp(RdppConfig()).predict(images(1))
