from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import uniform_filter
from torch import nn

from methods import l2bt
from methods.common.precision import set_precision
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError
from methods.l2bt import L2bt, L2btConfig, L2btModule, distances
from methods.training_length import Epochs

SIZE = (64, 96)
SMALL = {"image_size": SIZE, "hidden_dim": 24, "epochs": 3}
CPU = torch.device("cpu")


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@cache
def fitted(scale=1.0, **options):
    detector = L2bt(make_config(L2bt, "embedded", {**SMALL, **options}))
    with reproducible(0, CPU):
        detector.fit(ImageSet(images(5)), ImageSet(images(1), []), FitContext(0, train_scale=scale))
    return detector


class Levels(nn.Module):
    """Stands for a backbone: features (B, 6, 4, 6) of two levels of 4 and 6 channels, which a test chooses."""

    channels = (4, 6)

    def __init__(self, grids=((4, 6), (4, 6))):
        super().__init__()
        self.grids = list(grids)
        generator = torch.Generator().manual_seed(1)
        self.levels = [torch.randn(2, channels, 4, 6, generator=generator) for channels in self.channels]

    def grid(self, _):
        return self.grids

    def forward(self, _):
        return self.levels


def module(**options):
    with reproducible(0, CPU):
        return L2btModule(Levels(), L2btConfig(image_size=(64, 96), hidden_dim=8, **options))


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_defaults_are_the_papers():
    config = L2btConfig()
    assert (config.backbone, config.levels, config.image_size) == (
        "vit_base_patch14_reg4_dinov2",
        (7, 11),
        (1036, 1036),
    )
    assert config.learning_rate == 1e-3
    assert L2bt.training_length(config) == Epochs(50, 4)
    assert L2bt.deviations(config, FitContext(0)) == []
    assert L2bt.deviations(L2btConfig(learning_rate=1e-4, fusion="sum"), FitContext(0)) == [
        "learning rate 0.0001",
        "fusion sum",
    ]


def test_students_have_the_papers_parameters():
    student = l2bt.student(768, 768, 768)
    assert parameters(student) == 1_771_776
    assert [type(layer) for layer in student] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    with_students = module()
    assert parameters(with_students.forward_student) == 4 * 8 + 8 + 8 * 8 + 8 + 8 * 6 + 6
    assert parameters(with_students.backward_student) == 6 * 8 + 8 + 8 * 8 + 8 + 8 * 4 + 4


def predicted(student, features):
    """What a student makes of features (N, C), in float64."""
    first, _, second, _, last = student
    for layer in (first, second):
        hidden = features @ layer.weight.double().T + layer.bias.double()
        features = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return features @ last.weight.double().T + last.bias.double()


def literal_distances(found, features, kind):
    pairs = zip(found, features, strict=True)
    if kind == "cosine":
        return torch.stack([1 - some @ other / some.norm() / other.norm() for some, other in pairs])
    if kind == "normalised":
        return torch.stack([(some / some.norm() - other / other.norm()).norm() for some, other in pairs])
    return torch.stack([(some - other).square().sum().sqrt() for some, other in pairs])


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_training_loss_is_that_of_the_equation(kind):
    students = module(loss=kind)
    shallow, deep = (level.permute(0, 2, 3, 1).flatten(0, 2) for level in students.backbone.levels)
    of_deep = literal_distances(predicted(students.forward_student, shallow.double()), deep.double(), kind)
    of_shallow = literal_distances(predicted(students.backward_student, deep.double()), shallow.double(), kind)
    expected = of_deep.mean() + of_shallow.mean()
    torch.testing.assert_close(students.loss(shallow, deep).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("distance", ["normalised", "euclidean", "cosine"])
@pytest.mark.parametrize("fusion", ["product", "sum", "forward", "backward"])
def test_maps_and_scores_are_those_of_the_equations(distance, fusion):
    students = module(distance=distance, fusion=fusion)
    shallow, deep = (level.double().permute(0, 2, 3, 1).flatten(0, 2) for level in students.backbone.levels)
    of_deep = literal_distances(predicted(students.forward_student, shallow), deep, distance)
    of_shallow = literal_distances(predicted(students.backward_student, deep), shallow, distance)
    both = {"product": of_deep * of_shallow, "sum": of_deep + of_shallow, "forward": of_deep, "backward": of_shallow}
    upsampled = F.interpolate(both[fusion].view(2, 1, 4, 6), SIZE, mode="bilinear")[:, 0].detach().numpy()
    for side in (5, 5, 5, 5, 5, 7, 7, 7):
        upsampled = np.stack([uniform_filter(one, side, mode="reflect") for one in upsampled])
    with torch.no_grad():
        maps, scores = students(torch.zeros(2, 3, *SIZE))
    np.testing.assert_allclose(maps.numpy(), upsampled, rtol=1e-4)
    highest = np.sort(upsampled.reshape(2, -1))[:, -6:]  # of 6144 pixels
    np.testing.assert_allclose(scores.numpy(), highest.mean(1), rtol=1e-4)


def test_features_without_length_are_no_division_by_zero():
    nothing, something = torch.zeros(1, 3), torch.ones(1, 3)
    for kind in ("normalised", "euclidean", "cosine"):
        assert distances(nothing, something, kind).isfinite().all()


def test_levels_of_different_grids_are_refused():
    with pytest.raises(MethodError, match=r"has 4x6 and 2x3 at levels \(7, 11\)\n  Allowed: two blocks"):
        L2btModule(Levels([(4, 6), (2, 3)]), L2btConfig())
    with pytest.raises(MethodError, match="has 8x12 and 4x6 at levels"):
        fitted(levels=(2, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet18"}, "unknown backbone of L2BT 'resnet18'\n  Allowed: .*efficientnet_lite0.*vit_small"),
        ({"backbone": "vit_base_patch14"}, "did you mean 'vit_base_patch14_dinov2'"),
        ({"levels": [7]}, "does not take levels"),
        ({"levels": [-1, 2]}, "does not take levels"),
        ({"hidden_dim": 0}, "does not take hidden_dim"),
        ({"distance": "l1"}, "does not take distance"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(MethodError, match=message):
        make_config(L2bt, None, options)


@pytest.mark.slow
def test_training_lowers_the_loss():
    stages = []
    detector = L2bt(make_config(L2bt, "embedded", {**SMALL, "epochs": 30}))
    with reproducible(0, CPU):
        progress = FitContext(0, progress=lambda step: stages.append((step.stage, step.done, step.total)))
        detector.fit(ImageSet(images(5)), ImageSet(images(1), []), progress)
    assert detector.training_steps == 60
    assert detector.losses[-1][1] < 0.7 * detector.losses[0][1]
    assert ("features", 5, 5) in stages
    assert stages[-1] == ("training", 60, 60)
    assert fitted(scale=0.5).training_steps == 3


@pytest.mark.slow
def test_features_too_large_to_keep_give_the_same_result(monkeypatch):
    expected = fitted().predict(images(2))
    monkeypatch.setattr(l2bt, "FEATURE_BYTES", 0)
    options = make_config(L2bt, "embedded", SMALL)
    detector = L2bt(options)
    with reproducible(0, CPU):
        detector.fit(ImageSet(images(5)), ImageSet(images(1), []), FitContext(0))
    torch.testing.assert_close(detector.predict(images(2)).maps, expected.maps, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_half_precision_is_close():
    detector = fitted(epochs=4)
    expected = detector.predict(images(2, seed=1)).maps
    set_precision(detector.module(), "bf16")
    maps = detector.predict(images(2, seed=1)).maps
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected, rtol=0.1, atol=0.1 * float(expected.max()))


@pytest.mark.slow
def test_between_blocks_of_a_transformer():
    """Any image that its patches divide, and only such."""
    options = {"backbone": "vit_small_patch14_dinov2", "backbone_weights": "random", "levels": (1, 3)}

    def fit(size):
        detector = L2bt(make_config(L2bt, None, {**options, "image_size": size, "hidden_dim": 24, "epochs": 1}))
        some = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        with reproducible(0, CPU):
            detector.fit(ImageSet(some), ImageSet(some, []), FitContext(0))
        return detector, some

    detector, some = fit((42, 70))
    assert detector.predict(some).maps.shape == (2, 42, 70)
    assert detector.module().grid == (3, 5)
    assert [layer.in_features for layer in detector.module().forward_student[::2]] == [384, 24, 24]
    with pytest.raises(MethodError, match="patches of 14x14 pixels, which do not divide 42x64"):
        fit((42, 64))


def test_before_the_fit():
    with pytest.raises(RuntimeError, match="has not been fitted"):
        L2bt(L2btConfig()).predict(images(1))
    with pytest.raises(MethodError, match="at least one training image"):
        L2bt(L2btConfig()).fit(ImageSet(images(1), []), ImageSet(images(1), []), FitContext(0))
