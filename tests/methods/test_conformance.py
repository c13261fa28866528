"""What every registered detector must do: on tiny images, on the CPU, without a download."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from methods.detector import Detector, FitContext, ImageSet, Prediction, Progress
from methods.errors import MethodError
from methods.registry import load_method, make_config, method_names

# One line per method: the options that make it small and independent of downloads.
SMALL = {
    "efficientad_s": {"teacher": "random", "training_steps": 2},
    "efficientad_m": {"teacher": "random", "training_steps": 1},
    "patchcore": {"backbone": "efficientnet_lite0", "image_size": (96, 64), "coreset_fraction": 0.1},
    "fastflow": {"backbone": "efficientnet_lite0", "image_size": (96, 64), "training_steps": 12, "batch_size": 4},
}
# A random teacher after three steps tells nothing apart.
LEARNS_IN_SECONDS = {"patchcore", "fastflow"}
SLOW = {"efficientad_m"}

every_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in method_names()]
)


def stripes(count, size, seed):
    """Photographs of a striped surface: normal images with some noise."""
    generator = np.random.default_rng(seed)
    column = 128 + 60 * np.sin(np.arange(size[1]) / 4)
    pixels = column + generator.normal(0, 12, (count, 3, *size))
    return torch.from_numpy(pixels.clip(0, 255).astype(np.uint8))


def defective(images):
    images = images.clone()
    height, width = images.shape[2:]
    images[:, :, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = torch.tensor([[[250]], [[20]], [[20]]])
    return images


def fit(name, seed=0, count=3, progress=lambda _: None):
    method = load_method(name)
    config = make_config(method, None, SMALL[name])
    detector = method(config)
    images = stripes(count + 1, detector.input_size, seed=1)
    # As the runner does: a method that says it does not use validation images gets none.
    held_out = [count] if method.uses_validation else []
    train, validation = ImageSet(images, range(count)), ImageSet(images, held_out)
    detector.fit(train, validation, FitContext(seed, progress=progress))
    return detector


@cache
def fitted(name) -> Detector:
    return fit(name)


def unseen(name, *, normal=1, anomalous=1):
    images = stripes(normal + anomalous, fitted(name).input_size, seed=2)
    return torch.cat([images[:normal], defective(images[normal:])])


@cache
def predicted(name) -> Prediction:
    """Of a normal and a defective image."""
    return fitted(name).predict(unseen(name))


def global_random_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), np.random.get_state()[2]  # noqa: NPY002


def test_every_method_has_a_line():
    assert set(SMALL) == set(method_names())


@every_method
def test_options_are_a_frozen_dataclass_with_defaults(name):
    method = load_method(name)
    config = method.Config()
    assert config == make_config(method, None, {})
    hash(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, None)
    assert set(dataclasses.asdict(config)) >= set(SMALL[name])
    with pytest.raises(MethodError, match="unknown option"):
        make_config(method, None, {"no_such_option": 1})


@every_method
def test_presets_and_deviations_show_in_the_row(name, tmp_path):
    method = load_method(name)
    context = FitContext(0)
    for preset in method.presets:
        config = make_config(method, preset, {})
        assert method.deviations(config, context) != method.deviations(method.Config(), context), preset
    if "embedded" in method.presets and name != "efficientad_m":
        for identity in method.weights(make_config(method, "embedded", {}), tmp_path):
            assert identity.source == "embedded"
            assert len(identity.sha256) == 64
    small = make_config(method, None, SMALL[name])
    assert method.deviations(small, context)
    scaled = method.deviations(method.Config(), FitContext(0, train_scale=0.5))
    if hasattr(method.Config(), "training_steps"):
        assert scaled != method.deviations(method.Config(), context)


@every_method
def test_maps_and_scores_are_finite_float32(name):
    prediction = predicted(name)
    height, width = prediction.maps.shape[1:]
    assert prediction.maps.shape == (2, height, width)
    assert (height, width) <= fitted(name).input_size
    assert prediction.scores.shape == (2,)
    for values in (prediction.maps, prediction.scores):
        assert values.dtype == torch.float32
        assert not values.requires_grad
        assert values.isfinite().all()
    assert fitted(name).image_score(prediction.maps).shape == (2,)


@every_method
def test_same_seed_same_result(name):
    again = fit(name).predict(unseen(name))
    assert torch.equal(predicted(name).maps, again.maps)
    assert torch.equal(predicted(name).scores, again.scores)


@pytest.mark.parametrize("name", sorted(set(method_names()) - SLOW))
def test_other_seed_other_result(name):
    assert not torch.equal(predicted(name).maps, fit(name, seed=1).predict(unseen(name)).maps)


@every_method
def test_batch_size_does_not_matter_and_images_are_left_alone(name):
    images = unseen(name)
    for index, image in enumerate(images):
        maps = fitted(name).anomaly_map(image[None])
        scores = fitted(name).predict(image[None]).scores
        whole = predicted(name)
        torch.testing.assert_close(maps[0], whole.maps[index], rtol=1e-4, atol=1e-4 * float(whole.maps.abs().max()))
        torch.testing.assert_close(scores[0], whole.scores[index], rtol=1e-4, atol=1e-6)
    assert torch.equal(images, unseen(name))


@pytest.mark.parametrize("name", sorted(LEARNS_IN_SECONDS))
def test_defective_image_scores_higher(name):
    normal = fitted(name).predict(unseen(name, normal=4, anomalous=0))
    anomalous = fitted(name).predict(unseen(name, normal=0, anomalous=4))
    assert anomalous.scores.min() > normal.scores.max()
    height, width = anomalous.maps.shape[1:]
    inside = anomalous.maps[:, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3].mean()
    assert inside > anomalous.maps[:, : height // 6].mean()


@every_method
def test_one_training_image_is_enough_and_global_random_states_stay(name):
    steps: list[Progress] = []
    before = global_random_states()
    detector = fit(name, count=1, progress=steps.append)
    assert detector.predict(unseen(name, anomalous=0)).maps.isfinite().all()
    assert global_random_states() == before
    assert steps
    assert all(0 < step.done <= step.total for step in steps)
    if detector.training_steps is not None:
        assert detector.training_steps == SMALL[name]["training_steps"]
        assert detector.losses
        assert all(1 <= step <= detector.training_steps and np.isfinite(loss) for step, loss in detector.losses)


def test_an_image_set_yields_images_only():
    images = stripes(4, (8, 8), seed=0)
    subset = ImageSet(images, [3, 1])
    assert {name for name in dir(subset) if not name.startswith("_")} == {"size", "batches"}
    assert torch.equal(subset[:], images[[3, 1]])
    assert torch.equal(subset[0], images[3])
    assert [len(batch) for batch in subset.batches(1)] == [1, 1]
    with pytest.raises(ValueError, match="uint8"):
        ImageSet(images.float())
