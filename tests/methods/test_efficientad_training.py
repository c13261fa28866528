import importlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from methods.common.torchvision_import import import_torchvision
from methods.detector import FitContext, ImageSet
from methods.efficientad import training
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import normalise
from methods.errors import MethodError

import_torchvision()
transforms = importlib.import_module("torchvision.transforms.v2.functional")
pil = importlib.import_module("torchvision.transforms.functional")
OPTIONS = training.TrainingOptions(learning_rate=1e-4, weight_decay=1e-5, bf16=False)


def noise(count, side=256):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


class TinyNetwork(EfficientAdNetwork):
    """Fast: a teacher that only strides, and no more is asked of the others."""

    def __init__(self):
        with torch.device("meta"):
            super().__init__("S", padding=True)
        self.teacher = nn.Conv2d(3, 384, 4, stride=4)
        self.mean, self.std = torch.zeros(1, 384, 1, 1), torch.ones(1, 384, 1, 1)
        self.quantiles = torch.tensor([[0.0, 0.1], [0.0, 0.1]])


@dataclass
class Folder:
    """Photographs of one colour each: the value says which one it is."""

    count: int
    identity = "folder"

    def images(self, size, *, center_crop=None, limit=None, seed=0):
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed))[:limit]
        return ImageSet(order.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, *center_crop))


def test_teacher_statistics_are_those_of_all_positions_of_all_images():
    network, images = TinyNetwork(), noise(3)
    with torch.no_grad():
        features = network.teacher(normalise(images)).double().transpose(0, 1).flatten(1)
    training.teacher_targets(network, ImageSet(images), FitContext(0))
    torch.testing.assert_close(network.mean.flatten(), features.mean(1).float(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(network.std.flatten(), features.std(1, correction=0).float(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("room_for", [0, 1, 3])
def test_targets_are_the_same_kept_or_computed(room_for, monkeypatch):
    network, images = TinyNetwork(), noise(3)
    monkeypatch.setattr(training, "TEACHER_CACHE_BYTES", room_for * 384 * 64 * 64 * 4)
    targets = training.teacher_targets(network, ImageSet(images), FitContext(0))
    for index in range(3):
        with torch.no_grad():
            expected = network.target(network.teacher(normalise(images[index : index + 1])))
        torch.testing.assert_close(targets(index), expected)
    assert len(targets._kept) == room_for


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
        augmented = training.augment(image, generator)
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


def test_penalty_images_come_from_the_whole_folder_and_sometimes_gray():
    drawn = training.penalty_images(Folder(5), seed=0, generator=torch.Generator().manual_seed(0))
    seen = [next(drawn) for _ in range(60)]
    assert {int(image[0, 0, 0]) for image in seen} == set(range(5))
    assert all(image.shape == (3, 256, 256) for image in seen)

    class Coloured(Folder):
        def images(self, size, **options):
            return ImageSet(noise(4))

    drawn = training.penalty_images(Coloured(4), seed=0, generator=torch.Generator().manual_seed(0))
    gray = [bool((image[0] == image[1]).all()) for image in (next(drawn) for _ in range(200))]
    assert 0.2 < np.mean(gray) < 0.4


def test_a_large_folder_is_read_in_parts(monkeypatch):
    monkeypatch.setattr(training, "PENALTY_IMAGES", 4)
    drawn = training.penalty_images(Folder(200), seed=0, generator=torch.Generator().manual_seed(0))
    values = [int(next(drawn)[0, 0, 0]) for _ in range(40)]
    assert len(set(values[:4])) <= 4
    assert len(set(values)) > 8


def test_an_empty_folder_is_an_error():
    with pytest.raises(MethodError, match="no photographs"):
        next(training.penalty_images(Folder(0), seed=0, generator=torch.Generator()))


def test_the_learning_rate_falls_after_95_percent(monkeypatch):
    network = TinyNetwork()
    network.student, network.autoencoder = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
    monkeypatch.setattr(training, "step_loss", lambda network, **_: network.student.weight.sum())
    run = training.Training(network, ImageSet(noise(1)), FitContext(0), steps=20, options=OPTIONS)
    rates = []
    for _ in range(20):
        run.step()
        rates.append(run._optimizer.param_groups[0]["lr"])
    assert rates[:19] == [1e-4] * 19
    assert rates[19] == pytest.approx(1e-5)


def test_quantiles_are_numpys_over_all_resized_maps():
    """Over every pixel of every map at 256x256, Algorithm 1, lines 52-57."""
    network = TinyNetwork()
    maps = torch.rand(2, 3, 64, 64)  # structural and logical, of three images
    feed = iter(maps.unbind(1))
    network.feature_maps = lambda images: tuple(m[None] for m in next(feed))
    training.measure_quantiles(network, ImageSet(noise(3)), FitContext(0), OPTIONS)
    resized = nn.functional.interpolate(maps, (256, 256), mode="bilinear").double().flatten(1).numpy()
    expected = np.quantile(resized, [0.9, 0.995], axis=1).T
    np.testing.assert_allclose(network.quantiles.numpy(), expected, rtol=1e-6)


def test_constant_maps_do_not_divide_by_zero():
    network = TinyNetwork()
    network.feature_maps = lambda images: (torch.ones(1, 64, 64), torch.zeros(1, 64, 64))
    training.measure_quantiles(network, ImageSet(noise(1)), FitContext(0), OPTIONS)
    assert network(noise(1).float()).isfinite().all()
