"""Models of anomalib as detectors: their names, the errors, and, where it is installed, some of them at work."""

import importlib.metadata
from pathlib import Path

import pytest
import torch

from bench.options import RunOptions, resolve
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.conformance.images import striped
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError, WeightsError
from methods.from_anomalib import models
from methods.from_anomalib.detector import AnomalibModule, anomalib_method, pre_processing
from methods.from_anomalib.models import anomalib_models, image_models, parse_arguments
from methods.registry import load_method

installed = pytest.mark.skipif(
    not importlib.util.find_spec("anomalib"), reason="anomalib is not installed: pip install anomaly-bench[anomalib]"
)


def test_arguments_are_values_as_in_json_or_text() -> None:
    given = "backbone=resnet18, layers=[layer1,layer2], ratio=0.1,pre_trained=false, seed=null,sizes=[[1,2],[3]]"
    assert parse_arguments(given) == {
        "backbone": "resnet18",
        "layers": ["layer1", "layer2"],
        "ratio": 0.1,
        "pre_trained": False,
        "seed": None,
        "sizes": [[1, 2], [3]],
    }
    assert parse_arguments("") == {}
    for wrong in ("resnet18", "=1", "a b=1"):
        with pytest.raises(MethodError, match="not of the form OPTION=VALUE"):
            parse_arguments(wrong)


def test_methods_and_options_with_brackets_are_told_apart() -> None:
    model = "anomalib:Padim[layers=[layer1,layer2],ratio=0.1]"
    given = {
        "methods": f"patchcore,{model} , x.py:Mine",
        "set": [f"{model}.epochs=3", "x.py:Mine.a=[1,2]", "p.b = c=d"],
    }
    options = resolve(RunOptions, given, "bench run")
    assert options.methods == ("patchcore", model, "x.py:Mine")
    assert options.set == {model: {"epochs": "3"}, "x.py:Mine": {"a": "[1,2]"}, "p": {"b": "c=d"}}


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("2.5.1", r"anomalib 2\.5\.1 is installed, whose models have not been tried(.|\n)*pip install 'anomalib==2\.7"),
        ("3.0.0", r"anomalib 3\.0\.0 is installed"),
        (None, r"anomalib is not installed\n  pip install"),
    ],
)
def test_another_anomalib_is_refused(monkeypatch: pytest.MonkeyPatch, version: str | None, message: str) -> None:
    def of(_: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError
        return version

    monkeypatch.setattr(models, "version", of)
    anomalib_models.cache_clear()
    anomalib_method.cache_clear()
    try:
        with pytest.raises(MethodError, match=message):
            load_method("anomalib:Padim")
    finally:
        anomalib_models.cache_clear()


@installed
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("anomalib:Padimm", "unknown model of anomalib 'Padimm'; did you mean 'Padim'"),
        ("anomalib:Padim[backbone", r"names no model of anomalib\n  Allowed: anomalib:MODEL"),
        ("anomalib:", "names no model of anomalib"),
    ],
)
def test_a_name_that_is_none_says_what_is(name: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        load_method(name)


def fit(name: str, tmp_path: Path, count: int = 3, **options: object):
    method = load_method(name)
    detector = method(make_config(method, None, {"image_size": (64, 96), "batch_size": 2, "epochs": 1, **options}))
    images = striped(count, detector.input_size, seed=0)
    with reproducible(1, torch.device("cpu")):
        detector.fit(ImageSet(images), ImageSet(images, []), FitContext(1, weights_dir=tmp_path))
    return detector, images


@installed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("anomalib:Padim[backbone=resnet18,layers=[layer1],pre_trained=false,n_features=16]", None),
        ("anomalib:Patchcore[backbone=resnet18,layers=[layer2],pre_trained=false,coreset_sampling_ratio=0.05]", None),
        ("anomalib:Fastflow[backbone=resnet18,pre_trained=false,flow_steps=2]", 2),
    ],
)
def test_a_model_is_fitted_restored_and_repeatable(
    name: str, steps: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    detector, images = fit(name, tmp_path)
    first = detector.predict(images)
    assert first.maps.shape == (3, 64, 96)
    assert first.scores.shape == (3,)
    assert first.maps.dtype == first.scores.dtype == torch.float32
    assert detector.training_steps == steps
    assert len(detector.losses) == (steps or 0)
    again = detector.restore(detector.config, detector.module().state_dict()).predict(images)
    assert torch.equal(first.maps, again.maps)
    assert torch.equal(first.scores, again.scores)
    assert torch.equal(fit(name, tmp_path)[0].predict(images).maps, first.maps)
    whole, single = detector.predict(images).scores, torch.cat([detector.predict(one[None]).scores for one in images])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-4)
    assert not list(Path.cwd().iterdir())
    assert not any(parameter.requires_grad for parameter in detector.module().parameters())


@installed
@pytest.mark.parametrize("model", ["Padim", "EfficientAd", "Stfpm", "Dinomaly", "Draem", "MHPatchcore", "L2BT"])
def test_images_are_prepared_as_the_model_wants_them(model: str) -> None:
    """But for a centre crop: an image of the size that is left is the whole image."""
    size, mean, std = pre_processing(model, None)
    transform = getattr(image_models(), model).configure_pre_processor(size).transform
    pixels = striped(1, size, seed=0) / 255
    prepared = AnomalibModule(torch.nn.Identity(), mean, std)
    torch.testing.assert_close((pixels - prepared.mean) / prepared.std, transform(pixels), rtol=1e-5, atol=1e-5)


@installed
def test_the_size_is_the_models_own_and_that_within_its_centre_crop() -> None:
    sizes = {model: pre_processing(model, None)[0] for model in ("Padim", "Dinomaly", "MHPatchcore")}
    assert sizes == {"Padim": (256, 256), "Dinomaly": (392, 392), "MHPatchcore": (224, 224)}


@installed
def test_scores_are_raw(tmp_path: Path) -> None:
    """anomalib's own post-processing clips to [0, 1] by a validation set."""
    detector, images = fit(
        "anomalib:Padim[backbone=resnet18,layers=[layer1],pre_trained=false,n_features=16]", tmp_path
    )
    strange = torch.full_like(images[:1], 255)
    assert float(detector.predict(strange).scores) > 1


@installed
def test_an_option_that_the_model_does_not_have_is_named(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="unknown option of anomalib's Padim 'backbones'; did you mean 'backbone'"):
        fit("anomalib:Padim[backbones=resnet18]", tmp_path)


@installed
def test_a_model_without_maps_is_refused(tmp_path: Path) -> None:
    detector, images = fit("anomalib:Ganomaly", tmp_path)
    with pytest.raises(MethodError, match="makes no anomaly maps"):
        detector.predict(images)


@installed
def test_a_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"anomalib Stfpm wants to download something(.|\n)*\$HF_HOME"):
        fit("anomalib:Stfpm", tmp_path)


@installed
def test_textures_are_asked_for_before_a_failed_download_leaves_them_out(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"Draem needs photographs of textures(.|\n)*dtd_dir=/path/to/dtd"):
        fit("anomalib:Draem", tmp_path)
