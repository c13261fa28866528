from types import SimpleNamespace

import pytest
import torch

from methods.detector import FitContext, ImageSet, Progress
from methods.efficientad.detector import EfficientAdConfig, EfficientAdM, EfficientAdS
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import normalise
from methods.errors import MethodError, WeightsError

BOTH = pytest.mark.parametrize("size", ["S", "M"])


class Photographs:
    identity = "photographs (3 images, 0123456789ab)"

    def images(self, size, *, center_crop=None, limit=None, seed=0):
        assert (size, center_crop) == ((512, 512), (256, 256))
        return ImageSet(noise(3, seed))


def noise(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 256, 256), generator=generator, dtype=torch.uint8)


def few_colours():
    """An image that is learnt in a few steps."""
    image = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    image[..., 128:] = 255
    image[:, 0, :128] = 100
    return image


def fit(images=None, seed=0, steps=1, photographs=None, progress=lambda _: None, **options):
    images = noise(1) if images is None else images
    detector = EfficientAdS(EfficientAdConfig(teacher="random", training_steps=steps, **options))
    context = FitContext(seed, photographs=photographs, progress=progress)
    detector.fit(ImageSet(images), ImageSet(images), context)
    return detector


@pytest.fixture(scope="module")
def plain():
    return fit()


@pytest.fixture(scope="module")
def reports():
    return []


@pytest.fixture(scope="module")
def fitted(reports):
    return fit(few_colours(), steps=6, learning_rate=1e-3, progress=reports.append)


@pytest.mark.parametrize(("size", "millions"), [("S", 8.058), ("M", 20.738)])
def test_parameters_are_those_of_the_paper(size, millions):
    with torch.device("meta"):
        network = EfficientAdNetwork(size, padding=False)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 3) == millions


@pytest.mark.parametrize(("size", "giga"), [("S", 75.895), ("M", 235.411)])
def test_floating_point_operations_are_those_of_the_paper(size, giga):
    network = EfficientAdNetwork(size, padding=False).eval()
    with torch.no_grad(), torch.profiler.profile(with_flops=True) as profile:
        network(torch.zeros(1, 3, 256, 256))
    assert sum(event.flops or 0 for event in profile.key_averages()) / 1e9 == pytest.approx(giga, abs=0.002)


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
    with torch.device("meta"):
        unpadded, padded = (EfficientAdNetwork("S", padding=padding) for padding in (False, True))
    low = torch.zeros(1, 56, 56)
    low[0, 10, 20] = 1
    whole = torch.zeros(1, 64, 64)
    whole[0, 14, 24] = 1
    torch.testing.assert_close(unpadded.resize(low), padded.resize(whole))


def test_maps_reach_the_image_border():
    with torch.device("meta"):
        network = EfficientAdNetwork("S", padding=False)
    assert torch.equal(network.resize(torch.ones(2, 3, 56, 56)), torch.ones(2, 3, 256, 256))


def test_a_few_steps_lower_the_loss(fitted):
    assert fitted.training_steps == 6
    assert [step for step, _ in fitted.losses] == [1, 2, 3, 4, 5, 6]
    assert fitted.losses[-1][1] < 0.8 * fitted.losses[0][1]


def test_progress_carries_the_loss(fitted, reports):
    assert reports[0] == Progress("teacher", 1, 1)
    assert Progress("train", 6, 6, fitted.losses[-1][1]) in reports
    assert reports[-1] == Progress("normalise", 1, 1)


def test_validation_maps_are_normalised(fitted):
    """Lines 8-10 of Algorithm 2, the long way round."""
    images = few_colours()
    low, high = fitted.network.quantiles[:, 0], fitted.network.quantiles[:, 1]
    with torch.no_grad():
        structural, logical = (fitted.network.resize(m) for m in fitted.network.feature_maps(normalise(images)))
    expected = 0.05 * (structural - low[0]) / (high[0] - low[0]) + 0.05 * (logical - low[1]) / (high[1] - low[1])
    maps = fitted.anomaly_map(images)
    assert maps.shape == (1, 256, 256)
    torch.testing.assert_close(maps, expected, atol=1e-4, rtol=1e-4)
    assert fitted.image_score(maps)[0] == maps.max()


def test_batches_change_nothing(fitted):
    images = noise(3, seed=5)
    alone = torch.cat([fitted.anomaly_map(image[None]) for image in images])
    torch.testing.assert_close(fitted.anomaly_map(images), alone, atol=1e-4, rtol=1e-4)


def test_dropout_only_in_training(fitted):
    images = noise(1)
    assert torch.equal(fitted.anomaly_map(images), fitted.anomaly_map(images))


def test_a_seed_decides_everything(plain):
    images = noise(1, seed=9)
    again, other = fit(seed=0), fit(seed=4)
    assert again.losses == plain.losses
    assert torch.equal(again.anomaly_map(images), plain.anomaly_map(images))
    assert not torch.equal(other.anomaly_map(images), plain.anomaly_map(images))


def test_the_penalty_enters_the_loss(plain):
    assert fit(photographs=Photographs()).losses[0][1] != plain.losses[0][1]


def test_padded_bf16_runs():
    detector = fit(padding=True, precision="bf16")
    maps = detector.anomaly_map(noise(1))
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()


def test_without_validation_images_there_are_no_maps():
    detector = EfficientAdS(EfficientAdConfig(teacher="random", training_steps=1))
    with pytest.raises(MethodError, match="validation"):
        detector.fit(ImageSet(noise(1)), ImageSet(noise(1), []), FitContext(0))


def test_without_training_images_it_says_so():
    detector = EfficientAdS(EfficientAdConfig(teacher="random", training_steps=1))
    with pytest.raises(MethodError, match="training image"):
        detector.fit(ImageSet(noise(1), []), ImageSet(noise(1)), FitContext(0))


def test_a_row_shows_what_is_not_the_papers():
    imagenet = FitContext(0, photographs=SimpleNamespace(identity="ImageNet (1281167 images, 0123)"))
    assert EfficientAdS.deviations(EfficientAdConfig(), imagenet) == []
    config = EfficientAdConfig("embedded", padding=True, training_steps=700, learning_rate=1e-3, precision="bf16")
    assert EfficientAdS.deviations(config, FitContext(0, photographs=Photographs())) == [
        "teacher embedded",
        "pretraining penalty on photographs (3 images, 0123456789ab)",
        "700 of 70000 training steps",
        "learning rate 0.001",
        "precision bf16",
        "padded networks",
    ]
    assert EfficientAdS.deviations(EfficientAdConfig("/some/where/mine.pth"), FitContext(0, train_scale=0.01)) == [
        "teacher mine.pth",
        "no pretraining penalty",
        "700 of 70000 training steps",
    ]


def test_weights_name_the_teacher(tmp_path):
    (identity,) = EfficientAdM.weights(EfficientAdConfig(teacher="random"), tmp_path)
    assert (identity.name, identity.source, identity.sha256) == ("efficientad_m_teacher", "random", None)
    with pytest.raises(WeightsError, match="only the teacher of EfficientAD-S"):
        EfficientAdM.weights(EfficientAdConfig(teacher="embedded"), tmp_path)
