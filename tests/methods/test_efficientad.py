from dataclasses import fields
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from thin_efficientad import noise

from methods.common.precision import cpu_features, lacks_instructions
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet, Progress
from methods.efficientad.detector import EfficientAdConfig, EfficientAdM, EfficientAdS
from methods.efficientad.networks import EfficientAdNetwork
from methods.errors import MethodError

pytestmark = pytest.mark.slow
"""They share a fit, which takes ten seconds."""

CPU = torch.device("cpu")
RANDOM = EfficientAdConfig(teacher="random", training_steps=1)


class Photographs:
    identity = "photographs (3 images, 0123456789ab)"

    def images(self, size, *, center_crop=None, limit=None, seed=0):
        assert (size, center_crop) == ((512, 512), (256, 256))
        return ImageSet(noise(3, seed))


def few_colours():
    """An image that is learnt in a few steps."""
    image = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    image[..., 128:] = 255
    image[:, 0, :128] = 100
    return image


def fit(images=None, seed=0, steps=1, photographs=None, progress=lambda _: None, **options):
    images = noise(1) if images is None else images
    detector = EfficientAdS(EfficientAdConfig(teacher="random", training_steps=steps, **options))
    with reproducible(seed, CPU):
        detector.fit(ImageSet(images), ImageSet(images), FitContext(seed, photographs=photographs, progress=progress))
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


def test_a_few_steps_lower_the_loss(fitted):
    assert fitted.training_steps == 6
    assert [step for step, _ in fitted.losses] == [1, 2, 3, 4, 5, 6]
    assert fitted.losses[-1][1] < 0.8 * fitted.losses[0][1]


def test_progress_carries_the_loss(fitted, reports):
    assert reports[0] == Progress("features", 1, 1)
    assert Progress("train", 6, 6, fitted.losses[-1][1]) in reports
    assert reports[-1] == Progress("normalise", 1, 1)


def test_nine_tenths_of_the_training_images_maps_lie_below_zero(fitted):
    """Of either map, and here they are the validation's too."""
    prediction = fitted.predict(few_colours())
    assert prediction.maps.shape == (1, 256, 256)
    assert (prediction.maps <= 0).float().mean() > 0.8
    assert prediction.scores[0] == prediction.maps.max()


def test_another_seed_trains_another_network(plain):
    assert fit(seed=4).losses != plain.losses


def test_the_penalty_enters_the_loss(plain):
    assert fit(photographs=Photographs()).losses[0][1] != plain.losses[0][1]


def test_both_steps_give_the_same_loss_and_say_which_they_are(plain):
    reference = fit(step="reference")
    assert reference.implementation == {"training step": "reference"}
    assert plain.implementation == {"training step": "fast"}
    assert reference.losses[0][1] == pytest.approx(plain.losses[0][1], rel=1e-4)


def test_a_saved_detector_gives_the_same_maps_bit_for_bit(plain, tmp_path):
    save_file({k: v.contiguous() for k, v in plain.module().state_dict().items()}, tmp_path / "model.safetensors")
    generator = torch.get_rng_state()
    restored = EfficientAdS.restore(plain.config, load_file(tmp_path / "model.safetensors"))
    assert torch.equal(torch.get_rng_state(), generator)
    expected, found = plain.predict(noise(1, seed=9)), restored.predict(noise(1, seed=9))
    assert torch.equal(expected.maps, found.maps)
    assert torch.equal(expected.scores, found.scores)


def test_a_fitted_detector_gives_the_maps_of_pytorchs_convolutions(fitted):
    direct = EfficientAdNetwork("S", padding=False).eval()
    direct.load_state_dict(fitted.module().state_dict())
    images = noise(2, seed=9)
    found = fitted.predict(images)
    with torch.inference_mode():
        maps, scores = direct(images)
    extent = float(maps.max() - maps.min())
    assert not torch.equal(found.maps, maps), "another algorithm rounds otherwise: this compares nothing"
    torch.testing.assert_close(found.maps, maps, rtol=0, atol=2e-5 * extent)
    torch.testing.assert_close(found.scores, scores, rtol=0, atol=2e-5 * extent)


def test_the_state_of_another_network_is_refused(plain):
    with pytest.raises(MethodError, match="not the state of EfficientAD-M with these options"):
        EfficientAdM.restore(plain.config, plain.module().state_dict())
    incomplete = {name: tensor for name, tensor in plain.module().state_dict().items() if name != "quantiles"}
    with pytest.raises(MethodError, match=r'Missing key(.|\n)*"quantiles"'):
        EfficientAdS.restore(plain.config, incomplete)


def test_before_the_fit_there_is_no_module():
    with pytest.raises(RuntimeError, match="EfficientAD-S has not been fitted"):
        EfficientAdS(RANDOM).module()


def test_a_training_precision_that_the_cpu_emulates_is_refused():
    detector = EfficientAdS(make_config(EfficientAdS, None, {"teacher": "random", "training_precision": "bf16"}))
    if not lacks_instructions("bf16", cpu_features()):
        pytest.skip("this CPU computes in bfloat16")
    with pytest.raises(MethodError, match="bf16 is not supported by this CPU"):
        detector.fit(ImageSet(noise(1)), ImageSet(noise(1)), FitContext(0))


def test_the_fast_step_is_refused_elsewhere_than_on_a_cpu():
    detector = EfficientAdS(EfficientAdConfig(teacher="random", training_steps=1, step="fast"))
    with pytest.raises(MethodError, match="step=fast is for CPUs"):
        detector.fit(ImageSet(noise(1)), ImageSet(noise(1)), FitContext(0, torch.device("meta")))


def test_without_validation_images_there_are_no_maps():
    with pytest.raises(MethodError, match="validation"):
        EfficientAdS(RANDOM).fit(ImageSet(noise(1)), ImageSet(noise(1), []), FitContext(0))


def test_without_training_images_it_says_so():
    with pytest.raises(MethodError, match="training image"):
        EfficientAdS(RANDOM).fit(ImageSet(noise(1), []), ImageSet(noise(1)), FitContext(0))


def test_a_border_of_zeros_is_for_unpadded_networks():
    with pytest.raises(MethodError, match="map_border=zeros is about the maps of unpadded networks"):
        make_config(EfficientAdS, None, {"padding": "true", "map_border": "zeros"})


def test_a_row_shows_what_is_not_the_papers():
    imagenet = FitContext(0, photographs=SimpleNamespace(identity="ImageNet (1281167 images, 0123)"))
    assert EfficientAdS.deviations(EfficientAdConfig(), imagenet) == []
    assert EfficientAdS.deviations(EfficientAdConfig(step="reference"), imagenet) == []
    config = EfficientAdConfig("embedded", padding=True, training_steps=700, learning_rate=1e-3)
    assert EfficientAdS.deviations(config, FitContext(0, photographs=Photographs())) == [
        "teacher embedded",
        "padding",
        "learning rate 0.001",
        "700 of 70000 training steps",
        f"pretraining images {Photographs.identity}",
    ]
    config = EfficientAdConfig("/some/where/mine.pth", map_border="zeros", training_precision="bf16")
    assert EfficientAdS.deviations(config, FitContext(0, train_scale=0.01)) == [
        "teacher mine.pth",
        "map border zeros",
        "training precision bf16",
        "700 of 70000 training steps",
        "no pretraining images",
    ]


def test_switches_show_and_those_that_contradict_are_refused():
    config = EfficientAdConfig(pretraining_penalty=False, p_hard=0.0, shared_student=False, augmentation="none")
    # Nothing of the photographs, which this one does not read.
    assert EfficientAdS.deviations(config, FitContext(0, photographs=Photographs())) == [
        "shared student False",
        "p hard 0.0",
        "pretraining penalty False",
        "augmentation none",
    ]
    with pytest.raises(MethodError, match=r"quantile_a=0.9 is not below quantile_b=0.5"):
        EfficientAdConfig(quantile_b=0.5)
    with pytest.raises(MethodError, match="step=fast is for a shared student"):
        EfficientAdConfig(step="fast", shared_student=False)
    with pytest.raises(MethodError, match="does not take p_hard='1'"):
        make_config(EfficientAdS, None, {"p_hard": "1"})


def test_table_4_is_climbed_one_row_at_a_time():
    rows = [make_config(EfficientAdS, name, {}) for name in EfficientAdS.presets if name.startswith("table4_")]
    steps = [
        [field.name for field in fields(one) if getattr(one, field.name) != getattr(other, field.name)]
        for one, other in pairwise([*rows, EfficientAdConfig()])
    ]
    assert steps == [
        ["p_hard"],
        ["pretraining_penalty"],
        ["map_normalisation"],
        ["augmentation"],
        ["dropout"],
        ["shared_student"],
    ]


def test_the_first_row_of_table_4_fits_and_comes_back_from_its_state(tmp_path):
    options = {"teacher": "random", "training_steps": 1}
    config = make_config(EfficientAdS, "table4_pdn_architecture", options)
    detector = EfficientAdS(config)
    with reproducible(0, CPU):
        detector.fit(ImageSet(noise(1)), ImageSet(noise(1)), FitContext(0, photographs=Photographs()))
    assert detector.implementation == {"training step": "reference"}
    images = noise(1, seed=1)
    expected, restored = detector.predict(images), EfficientAdS.restore(config, detector.module().state_dict())
    assert torch.equal(expected.maps, restored.predict(images).maps)


def test_weights_name_the_teacher(tmp_path):
    (identity,) = EfficientAdM.weights(EfficientAdConfig(teacher="random"), tmp_path)
    assert (identity.name, identity.source, identity.sha256) == ("efficientad_m_teacher", "random", None)
    (identity,) = EfficientAdM.weights(EfficientAdConfig(teacher="embedded"), tmp_path)
    assert (identity.name, identity.source) == ("efficientad_m_teacher", "embedded")
