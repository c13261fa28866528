import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from methods.detector import FitContext, ImageSet
from methods.errors import MethodError
from methods.patchcore import PatchCore, PatchCoreConfig, _upsampling_matrix
from methods.registry import make_config

CONTEXT = FitContext(seed=0)


def images(count, size=(64, 96), seed=0):
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fitted(**options):
    config = make_config(PatchCore, "embedded", {"image_size": (64, 96), **options})
    detector = PatchCore(config)
    detector.fit(ImageSet(images(4)), ImageSet(images(1)), CONTEXT)
    return detector


def test_defaults_are_the_papers():
    config = PatchCoreConfig()
    assert (config.backbone, config.image_size, config.dim) == ("wide_resnet101_2", (224, 224), 1024)
    assert (config.coreset_fraction, config.neighbours, config.sigma) == (0.01, 1, 4.0)
    assert PatchCore.deviations(config, CONTEXT) == []
    assert PatchCore.deviations(make_config(PatchCore, "embedded", {}), CONTEXT) == ["backbone efficientnet_lite0"]
    assert PatchCore.deviations(PatchCoreConfig(backbone_weights="/home/me/own.pth", search="torch"), CONTEXT) == [
        "backbone weights own.pth"
    ]


@pytest.mark.parametrize(("coarse", "fine", "sigma"), [(28, 224, 4.0), (8, 64, 4.0), (3, 5, 4.0), (7, 30, 0.7)])
def test_upsampling_equals_torch_then_scipy(coarse, fine, sigma):
    scores = torch.rand(coarse, coarse, generator=torch.Generator().manual_seed(0))
    matrix = _upsampling_matrix(coarse, fine, sigma)
    upsampled = F.interpolate(scores[None, None], (fine, fine), mode="bilinear")[0, 0]
    expected = gaussian_filter(upsampled.double().numpy(), sigma)
    np.testing.assert_allclose((matrix @ scores @ matrix.T).numpy(), expected, rtol=2e-6)


def test_image_score_is_the_largest_patch_score():
    detector = fitted(coreset_fraction=0.5)
    asked = images(2, seed=1)
    bank = detector.nearest.bank.double()
    with torch.no_grad():
        patches = detector.features(asked).flatten(2).transpose(1, 2).double()
    scores = torch.cdist(patches, bank).square().amin(2)
    prediction = detector.predict(asked)
    torch.testing.assert_close(prediction.scores.double(), scores.amax(1), rtol=1e-4, atol=1e-3)
    assert prediction.maps.shape == (2, 64, 96)
    assert (prediction.maps.flatten(1).amax(1) < prediction.scores).all()


def test_whole_coreset_knows_every_training_patch():
    detector = fitted(coreset_fraction=1.0)
    assert detector.predict(images(4)).scores.max() < 1e-5 * detector.nearest.bank.square().sum(1).max()


def test_memory_bank_size():
    assert len(fitted(coreset_fraction=0.1).nearest.bank) == int(0.1 * 4 * 8 * 12)
    assert len(fitted(coreset_fraction=1e-6).nearest.bank) == 1


def test_search_and_neighbours():
    asked = images(2, seed=1)
    by_faiss, by_torch = (fitted(search=s, coreset_fraction=0.1).predict(asked) for s in ("faiss", "torch"))
    torch.testing.assert_close(by_faiss.maps, by_torch.maps, rtol=1e-4, atol=1e-3)
    assert (fitted(neighbours=3, coreset_fraction=0.1).predict(asked).scores >= by_faiss.scores - 1e-3).all()


@pytest.mark.parametrize("options", [{"backbone": "resnet"}, {"dim": 3}, {"coreset_fraction": 0}, {"sigma": -1}])
def test_bad_options(options):
    with pytest.raises(MethodError):
        make_config(PatchCore, None, options)
