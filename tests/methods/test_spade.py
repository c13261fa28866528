import copy
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode

from methods import spade
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError
from methods.spade import Spade, SpadeConfig, SpadeModule

SIZE = (64, 96)
CONTEXT = FitContext(seed=0)
PYRAMIDS = pytest.mark.parametrize("pyramid", ["concatenated", "per_level"])


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@cache
def fitted(count=4, **options):
    detector = Spade(make_config(Spade, None, {"backbone": "efficientnet_lite0", "image_size": SIZE, **options}))
    with reproducible(0, CONTEXT.device):
        detector.fit(ImageSet(images(count)), ImageSet(images(1), []), CONTEXT)
    return detector


def test_defaults_are_the_papers():
    config = SpadeConfig()
    assert (config.backbone, config.image_size) == ("wide_resnet50_2", (224, 224))
    assert (config.levels, config.image_level) == ((4, 8, 16), 32)
    assert (config.neighbours, config.pyramid, config.sigma) == (50, "concatenated", 4.0)
    assert Spade.deviations(config, CONTEXT) == []
    assert Spade.deviations(SpadeConfig(neighbours=5, pyramid="per_level"), CONTEXT) == [
        "neighbours 5",
        "pyramid per_level",
    ]


def literal(module, asked, neighbours, pyramid):
    """The paper's equations in float64, on whole matrices of distances."""

    def features(batch):
        with torch.no_grad():
            *levels, last = (level.double() for level in module.backbone(batch))
        if pyramid == "concatenated":
            levels = [torch.cat([F.interpolate(level, levels[0].shape[2:], mode="bilinear") for level in levels], 1)]
        return levels, F.adaptive_avg_pool2d(last, 1).flatten(1)

    normal_levels, normal = features(images(4))
    levels, pooled = features(asked)
    nearest, retrieved = torch.cdist(pooled, normal).sort(1)
    maps = []
    for number, training_images in enumerate(retrieved[:, :neighbours]):
        of_levels = []
        for level, normal_level in zip(levels, normal_levels, strict=True):
            gallery = normal_level[training_images].transpose(0, 1).flatten(1).T
            distances = torch.cdist(level[number].flatten(1).T, gallery).amin(1).view(1, 1, *level.shape[2:])
            of_levels.append(F.interpolate(distances, SIZE, mode="bilinear")[0, 0])
        maps.append(gaussian_filter(torch.stack(of_levels).mean(0).numpy(), 4))
    return np.stack(maps), nearest[:, :neighbours].mean(1)


@PYRAMIDS
def test_maps_and_scores_are_those_of_the_equations(pyramid):
    detector = fitted(neighbours=2, pyramid=pyramid)
    asked = images(2, seed=1)
    maps, scores = literal(detector.module(), asked, 2, pyramid)
    prediction = detector.predict(asked)
    np.testing.assert_allclose(prediction.maps.numpy(), maps, rtol=1e-4)
    torch.testing.assert_close(prediction.scores.double(), scores, rtol=1e-5, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("image_level", [2, 3])
def test_images_are_compared_by_a_level_of_a_transformer(image_level):
    options = {"backbone": "vit_small_patch14_dinov2", "backbone_weights": "random", "levels": (2,)}
    config = make_config(Spade, None, {**options, "image_level": image_level, "image_size": (42, 70)})
    detector = Spade(config)
    normal, asked = images(3)[:, :, :42, :70], images(1, seed=1)[:, :, :42, :70]
    with reproducible(0, CONTEXT.device):
        detector.fit(ImageSet(normal), ImageSet(normal, []), CONTEXT)
    module = detector.module()
    assert module.level_2.shape == (3, 3, 5, 384)
    assert len(module.backbone.channels) == image_level - 1
    pooled = [module.backbone(some)[-1].double().mean((2, 3)) for some in (asked, normal)]
    prediction = detector.predict(asked)
    torch.testing.assert_close(prediction.scores.double(), torch.cdist(*pooled).mean(1), rtol=1e-5, atol=0)
    assert prediction.maps.shape == (1, 42, 70)


class Multiples(torch.nn.Module):
    """Stands for a backbone whose levels are its images, once, twice and so on."""

    def __init__(self, count):
        super().__init__()
        self.count = count
        self.channels = (3,) * count

    def grid(self, size):
        return [size] * self.count

    def forward(self, images):
        return [(number + 1) * images for number in range(self.count)]


@pytest.mark.parametrize(("image_level", "factor"), [(2, 1), (3, 2)])
def test_images_are_described_by_the_last_level_and_positions_by_the_others(image_level, factor):
    options = {"backbone": "vit_small_patch14_dinov2", "levels": (2,), "image_level": image_level}
    config = SpadeConfig(**options)
    module = SpadeModule(Multiples(len(config.all_levels)), 1, config)
    asked = torch.rand(2, 3, 4, 6)
    (level,), pooled = module.features(asked)
    assert torch.equal(level, asked)
    torch.testing.assert_close(pooled, factor * asked.mean((2, 3)))


def test_presets_on_transformers():
    levels = {preset: make_config(Spade, preset, {}).all_levels for preset in ("vit", "vit_embedded")}
    assert levels == {"vit": (7, 11), "vit_embedded": (7,)}


@pytest.mark.slow
def test_only_retrieved_images_are_compared():
    module = copy.deepcopy(fitted(neighbours=2).module())
    asked = images(4)  # each is its own nearest neighbour
    expected, scores = module(asked)
    retrieved = torch.cdist(module.images, module.images).topk(2, largest=False).indices
    unlike = next(number for number in range(4) if number not in retrieved[0])
    module.level_4[unlike] = 1e3
    maps, _ = module(asked)
    assert torch.equal(maps[0], expected[0])
    assert not torch.equal(maps[unlike], expected[unlike])
    torch.testing.assert_close(scores, torch.cdist(module.images, module.images).sort(1).values[:, 1] / 2)


@pytest.mark.slow
def test_all_training_images_are_compared_if_there_are_few():
    few, all_of_them = (fitted(neighbours=count).predict(images(2, seed=1)) for count in (50, 4))
    assert torch.equal(few.maps, all_of_them.maps)
    assert torch.equal(few.scores, all_of_them.scores)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor of distances that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket is torch.ops.aten.addmm:
            self.elements = max(self.elements, output.numel())
        return output


@pytest.mark.slow
@PYRAMIDS
def test_distances_in_chunks_are_bounded_and_the_same(pyramid, monkeypatch):
    module = fitted(neighbours=3, pyramid=pyramid).module()
    asked = images(2, seed=1)
    expected, _ = module(asked)
    monkeypatch.setattr(spade, "CHUNK", 7)
    with Largest() as largest:
        maps, _ = module(asked)
    assert largest.elements == 7 * (SIZE[0] // 4) * (SIZE[1] // 4)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4 * float(expected.max()))


def test_the_state_holds_the_features_of_all_training_images():
    state = fitted().module().state_dict()
    assert {name: tuple(value.shape) for name, value in state.items() if not name.startswith("backbone.")} == {
        "level_4": (4, 16, 24, 24),
        "level_8": (4, 8, 12, 40),
        "level_16": (4, 4, 6, 112),
        "images": (4, 320),
    }
    config = SpadeConfig(backbone="efficientnet_lite0", image_size=(96, 64))
    with pytest.raises(MethodError, match="not the state of SPADE with these options"):
        Spade.restore(config, state)


@pytest.mark.slow
def test_prediction_waits_for_nothing():
    """On a GPU each of these operators would make the host wait for it."""
    module = fitted().module()
    asked = images(2)
    with torch.inference_mode(), profile() as profiler:
        module(asked)
    assert not {event.key for event in profiler.key_averages()} & {"aten::item", "aten::nonzero"}


def test_before_the_fit():
    with pytest.raises(RuntimeError, match="has not been fitted"):
        Spade(SpadeConfig()).predict(images(1))
    with pytest.raises(MethodError, match="at least one training image"):
        Spade(SpadeConfig()).fit(ImageSet(images(1), []), ImageSet(images(1), []), CONTEXT)


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "vit_small_patch14_dinov2"},
        {"levels": ()},
        {"image_level": 8},
        {"neighbours": 0},
        {"pyramid": "mean"},
        {"sigma": 0},
    ],
)
def test_bad_options(options):
    with pytest.raises(MethodError):
        make_config(Spade, None, options)
