import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from thin_efficientad import noise, thin_network
from torch import nn

from methods.common.torchvision_import import import_torchvision
from methods.detector import FitContext, ImageSet
from methods.efficientad import step, training
from methods.efficientad.training import (
    QUANTILES,
    Training,
    TrainingOptions,
    measure_normalisation,
    teacher_targets,
    train_network,
)

import_torchvision()
transforms = importlib.import_module("torchvision.transforms.v2.functional")
pil = importlib.import_module("torchvision.transforms.functional")
OPTIONS = TrainingOptions(learning_rate=1e-3, weight_decay=1e-5, precision="fp32", step="reference")


class Photographs:
    identity = "photographs (5 images, 0123456789ab)"

    def images(self, size, *, center_crop=None, limit=None, seed=0):
        return ImageSet(noise(5, seed))


def test_teacher_statistics_are_those_of_all_positions_of_all_images():
    network, images = thin_network(), noise(3)
    teacher_targets(network, ImageSet(images), FitContext(0))
    with torch.no_grad():
        features = network.teacher(network.prepare(images)).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(network.mean.flatten(), features.mean(1).float(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(network.std.flatten(), features.std(1, correction=0).float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("room_for", [0, 1, 3])
def test_what_memory_holds_changes_no_target(room_for, monkeypatch):
    network, images = thin_network(), noise(3)
    monkeypatch.setattr(training, "TEACHER_CACHE_BYTES", room_for * 384 * 56 * 56 * 4)
    features = teacher_targets(network, ImageSet(images), FitContext(0))
    assert features.kept == room_for
    for index in range(3):
        with torch.no_grad():
            expected = network.teacher(network.prepare(images[index : index + 1]))
        assert torch.equal(features[[index]][0], expected)


def test_augmentation_is_one_of_three_with_factors_around_one():
    image = noise(1, side=32)[0]
    generator = torch.Generator().manual_seed(0)
    factors = torch.linspace(0.8, 1.2, 81)
    families = [
        torch.stack([adjust(image, float(factor)) for factor in factors])
        for adjust in (transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation)
    ]
    chosen = set()
    for _ in range(30):
        augmented = training.colour_jitter(image, training.JITTER, generator)
        assert augmented.dtype == torch.uint8
        distances = [(family.float() - augmented.float()).abs().amax((1, 2, 3)).min().item() for family in families]
        assert min(distances) <= 2  # half a step between the factors tried
        chosen.add(int(np.argmin(distances)))
    assert chosen == {0, 1, 2}


def test_augmentation_matches_pil():
    image = noise(1, side=32)[0]
    for name in ("adjust_brightness", "adjust_contrast", "adjust_saturation"):
        expected = pil.pil_to_tensor(getattr(pil, name)(pil.to_pil_image(image), 1.13)).int()
        found = getattr(transforms, name)(image, 1.13).int()
        assert (found - expected).abs().max() <= 1, name


@pytest.mark.slow
def test_the_learning_rate_falls_after_95_percent():
    """Adam moves the weight with the steadiest gradient by about the learning rate."""
    network = thin_network(autoencoder=False)
    moved = []
    with Training(network, ImageSet(noise(1)), FitContext(0), steps=20, options=OPTIONS) as run:
        for _ in range(20):
            before = [parameter.detach().clone() for parameter in network.student.parameters()]
            run.step()
            after = [parameter.detach() for parameter in network.student.parameters()]
            moved.append(max(float((b - a).abs().max()) for a, b in zip(before, after, strict=True)))
    assert all(0.8e-3 < distance < 3e-3 for distance in moved[:19])
    assert 0.05 < moved[19] / moved[18] < 0.2


@pytest.mark.slow
def test_dropout_is_active_in_training_and_off_afterwards():
    network = thin_network()
    shares = []

    def record(_, inputs, output):
        positive = inputs[0] > 0
        shares.append(float((output[positive] == 0).float().mean()))

    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    for dropout in dropouts:
        dropout.register_forward_hook(record)
    train_network(network, ImageSet(noise(1)), FitContext(0), 1, OPTIONS)
    assert len(shares) == len(dropouts) == 6
    assert all(0.15 < share < 0.25 for share in shares[2:])  # the first maps are of few positions
    shares.clear()
    maps, _ = network(noise(1))
    assert shares == [0.0] * len(dropouts)
    assert torch.equal(maps, network(noise(1))[0])


@pytest.mark.slow
def test_after_training_there_are_no_gradients():
    network = thin_network(autoencoder=False)
    losses = train_network(network, ImageSet(noise(2)), FitContext(0, photographs=Photographs()), 2, OPTIONS)
    assert [step for step, _ in losses] == [1, 2]
    assert not network.training
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_the_teacher_is_not_trained():
    network = thin_network(autoencoder=False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    train_network(network, ImageSet(noise(1)), FitContext(0), 1, OPTIONS)
    same = {name for name, tensor in network.state_dict().items() if torch.equal(tensor, before[name])}
    assert {name for name in before if name.startswith("teacher.")} <= same
    assert not {name for name in before if name.startswith(("student.", "autoencoder."))} & same


def maps_of_validation(network, images):
    """On the feature grid, one image after another."""
    with torch.no_grad():
        return torch.cat([network.feature_maps(network.prepare(image[None])) for image in images], dim=1)


@pytest.mark.parametrize("border", ["replicate", "zeros"])
def test_quantiles_are_numpys_over_all_maps(border):
    """Of every pixel of every map at 256x256 (Algorithm 1, lines 52-57), or of the positions that there are."""
    network, images = thin_network(map_border=border).eval(), noise(2)
    measure_normalisation(network, ImageSet(images), FitContext(0))
    maps = maps_of_validation(network, images)
    if border == "replicate":
        maps = F.interpolate(F.pad(maps, (4, 4, 4, 4), mode="replicate"), (256, 256), mode="bilinear")
    expected = np.quantile(maps.double().flatten(1).numpy(), QUANTILES, axis=1).T
    np.testing.assert_allclose(network.quantiles.numpy(), expected, rtol=1e-5)


def test_constant_maps_do_not_divide_by_zero():
    network = thin_network(autoencoder=False).eval()
    for layers in (network.teacher, network.student):
        layers[-1].weight.data.zero_()
        layers[-1].bias.data.zero_()
    network.autoencoder[0].weight.data.zero_()
    network.autoencoder[0].bias.data.zero_()
    measure_normalisation(network, ImageSet(noise(1)), FitContext(0))
    maps, scores = network(noise(1))
    assert maps.isfinite().all()
    assert scores.isfinite().all()


@pytest.mark.parametrize("border", ["replicate", "zeros"])
def test_other_levels_and_gcads_normalisation_over_all_maps(border):
    """Section 4: GCAD's gives anomaly scores of normal images mean 0 and variance 1."""
    network, images = thin_network(map_border=border).eval(), noise(2)
    maps = maps_of_validation(network, images)
    if border == "replicate":
        maps = F.interpolate(F.pad(maps, (4, 4, 4, 4), mode="replicate"), (256, 256), mode="bilinear")
    maps = maps.double().flatten(1).numpy()
    measure_normalisation(network, ImageSet(images), FitContext(0), levels=(0.5, 0.75))
    np.testing.assert_allclose(network.quantiles.numpy(), np.quantile(maps, (0.5, 0.75), axis=1).T, rtol=1e-5)
    measure_normalisation(network, ImageSet(images), FitContext(0), "mean_std")
    low, high = network.quantiles.double().numpy().T[:, :, None]
    normalised = 0.1 * (maps - low) / (high - low)  # as Algorithm 2 does
    np.testing.assert_allclose(normalised.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(normalised.var(1), 1, rtol=1e-3)


def test_without_normalisation_the_map_is_the_mean_of_both():
    network, images = thin_network().eval(), noise(2)
    measure_normalisation(network, ImageSet(images), FitContext(0), "none")
    with torch.no_grad():
        expected = network.resize(network.feature_maps(network.prepare(images)).mean(0))
        torch.testing.assert_close(network(images)[0], expected)


def recorded_steps(monkeypatch, photographs=None, **options):
    """What two steps were given, on three different images."""
    given = []

    def record(network, **inputs):
        given.append(inputs)
        return step.step_loss(network, **inputs)

    monkeypatch.setitem(training.STEPS, "reference", record)
    torch.manual_seed(0)
    network = thin_network(autoencoder=False)
    context = FitContext(0, photographs=photographs)
    with Training(network, ImageSet(noise(3)), context, steps=2, options=replace(OPTIONS, **options)) as run:
        run.step()
        run.step()
    return network, given


@pytest.mark.parametrize("augmentation", ["autoencoder", "both", "none"])
def test_augmentation_is_of_those_it_is_asked_for(augmentation, monkeypatch):
    network, given = recorded_steps(monkeypatch, augmentation=augmentation)
    originals = [network.prepare(image[None]) for image in noise(3)]
    for inputs in given:
        image, augmented = inputs["image"], inputs["augmented"]
        assert any(torch.equal(image, original) for original in originals) == (augmentation != "both")
        assert torch.equal(image, augmented) == (augmentation != "autoencoder")
        with torch.no_grad():
            torch.testing.assert_close(inputs["target"], network.target(network.teacher(image)))


def test_the_penalty_can_be_left_out_and_p_hard_reaches_the_loss(monkeypatch):
    _, given = recorded_steps(monkeypatch, Photographs(), penalty=False, p_hard=0.5)
    assert [(inputs["penalty"], inputs["p_hard"]) for inputs in given] == [(None, 0.5)] * 2
    _, given = recorded_steps(monkeypatch, Photographs())
    assert all(inputs["penalty"].shape == (1, 3, 256, 256) and inputs["p_hard"] == 0.999 for inputs in given)
