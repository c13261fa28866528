from functools import cache

import pytest
import torch
from torch import nn

from methods.common import backbones
from methods.common.memory_bank import memory_bank
from methods.common.seeding import reproducible
from methods.common.torchvision_import import import_torchvision
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError
from methods.patchcore_ensemble import PatchCoreEnsemble, PatchCoreEnsembleConfig, calibrated_mean
from methods.weights.catalogue import backbone_spec

SIZE = (64, 96)
CONTEXT = FitContext(seed=0)
LITE0 = "efficientnet_lite0"
SMALL = {"image_size": SIZE, "dim": 32, "coreset_fraction": 0.05}


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@cache
def fitted(validation=3):
    detector = PatchCoreEnsemble(make_config(PatchCoreEnsemble, "embedded", SMALL))
    with reproducible(0, CONTEXT.device):
        detector.fit(ImageSet(images(3)), ImageSet(images(validation, seed=1)), CONTEXT)
    return detector


def test_defaults_are_the_papers():
    config = PatchCoreEnsembleConfig()
    assert config.backbones == ("wide_resnet101_2", "resnext101_32x8d", "densenet201")
    assert (config.image_size, config.dim, config.coreset_fraction) == ((320, 320), 384, 0.01)
    assert PatchCoreEnsemble.deviations(config, CONTEXT) == []
    embedded = make_config(PatchCoreEnsemble, "embedded", {})
    assert PatchCoreEnsemble.deviations(embedded, CONTEXT) == [
        "backbones efficientnet_lite0, efficientnet_lite0, efficientnet_lite0",
        "strides 8+16, 4+8, 16+32",
    ]


@pytest.mark.slow
def test_the_truncated_networks_have_the_papers_parameters():
    config = PatchCoreEnsembleConfig()
    import_torchvision()  # its operators are registered on no device
    with torch.device("meta"):
        networks = [backbones._convolutional(backbone_spec(name), name, (8, 16))[0] for name in config.backbones]
    assert [round(_millions(network), 2) for network in networks] == [82.87, 58.00, 9.50]
    assert round(sum(map(_millions, networks)), 1) == 150.4


def _millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def test_members_are_averaged_on_the_scale_of_held_out_images():
    values = torch.tensor([[1.0, 5.0], [30.0, 10.0]])
    ranges = torch.tensor([[1.0, 3.0], [10.0, 50.0]])
    literal = [((1 - 1) / 2 + (30 - 10) / 40) / 2, ((5 - 1) / 2 + (10 - 10) / 40) / 2]
    assert calibrated_mean(tuple(values), ranges).tolist() == pytest.approx(literal)


def test_a_range_of_one_value_is_from_zero():
    ranges = torch.tensor([[4.0, 4.0], [0.0, 0.0]])
    mean = calibrated_mean((torch.tensor([2.0, 4.0]), torch.zeros(2)), ranges)
    assert mean.tolist() == [0.25, 0.5]


@pytest.mark.slow
def test_held_out_images_are_the_scale_of_maps_and_scores():
    detector = fitted()
    for name, index in (("map_ranges", 0), ("score_ranges", 1)):
        with torch.no_grad():
            values = [member(images(3, seed=1))[index].double() for member in detector.module().members]
        ranges = torch.tensor([[float(value.min()), float(value.max())] for value in values])
        torch.testing.assert_close(getattr(detector.module(), name), ranges, rtol=1e-5, atol=0)
        asked = images(2, seed=2)
        with torch.no_grad():
            parts = [member(asked)[index].double() for member in detector.module().members]
        scaled = [(part - least) / (most - least) for part, (least, most) in zip(parts, ranges.double(), strict=True)]
        literal = torch.stack(scaled).mean(0)
        found = vars(detector.predict(asked))["maps" if index == 0 else "scores"]
        torch.testing.assert_close(found.double(), literal, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_each_member_is_a_patchcore_of_its_own_levels():
    module = fitted().module()
    assert [member.grid for member in module.members] == [(8, 12), (16, 24), (4, 6)]
    assert [len(member.bank) for member in module.members] == [int(0.05 * 3 * grid) for grid in (96, 384, 24)]
    for member in module.members:
        assert torch.equal(memory_bank(member.features, ImageSet(images(3)), 0.05, CONTEXT), member.bank)


def test_nothing_to_fit_or_to_calibrate_on():
    detector = PatchCoreEnsemble(make_config(PatchCoreEnsemble, "embedded", SMALL))
    one, none = ImageSet(images(1)), ImageSet(images(1), [])
    with pytest.raises(MethodError, match="at least one validation image"):
        detector.fit(one, none, CONTEXT)
    with pytest.raises(MethodError, match="at least one training image"):
        detector.fit(none, one, CONTEXT)
    with pytest.raises(RuntimeError, match="has not been fitted"):
        detector.predict(images(1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"backbones": [LITE0, LITE0]}, "and they are 2, 3, 3"),
        ({"backbones": [], "backbone_weights": [], "strides": []}, "at least one"),
        ({"backbones": ["resnet", LITE0, LITE0]}, "unknown backbone 'resnet'"),
        ({"strides": ["8,16", "8+16", "8+16"]}, "does not take strides"),
    ],
)
def test_bad_options(options, expected):
    with pytest.raises(MethodError, match=expected):
        make_config(PatchCoreEnsemble, None, options)


def test_each_member_has_weights_of_its_own(tmp_path):
    own = tmp_path / "own.pth"
    own.write_bytes(b"weights")
    config = make_config(
        PatchCoreEnsemble, "embedded", {"backbone_weights": ["embedded", "random", str(own)], "image_size": (320, 321)}
    )
    identities = PatchCoreEnsemble.weights(config, tmp_path)
    assert [identity.source for identity in identities] == ["embedded", "random", "file"]
    assert "backbone weights embedded, random, own.pth" in PatchCoreEnsemble.deviations(config, CONTEXT)
