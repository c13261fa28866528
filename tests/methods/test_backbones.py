import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.common import backbones
from methods.common.backbones import BACKBONES, Backbone, backbone_identity, backbone_spec
from methods.common.torchvision_import import import_torchvision
from methods.errors import MethodError, WeightsError


def images(size=64):
    return torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def with_random_statistics(network):
    generator = torch.Generator().manual_seed(3)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
            norm.weight.data.uniform_(0.5, 1.5, generator=generator)
            norm.bias.data.normal_(0, 0.1, generator=generator)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * ("101" in n)) for n in BACKBONES])
def test_folding_batch_norms_keeps_the_features(name, monkeypatch, tmp_path):
    fold = backbones._fold_batch_norms
    found = []
    for steps in ([with_random_statistics], [with_random_statistics, fold]):
        monkeypatch.setattr(
            backbones, "_fold_batch_norms", lambda network, steps=steps: [step(network) for step in steps]
        )
        torch.manual_seed(0)
        backbone = Backbone(name, (4, 8, 16), "random", tmp_path)
        with torch.no_grad():
            found.append(backbone(images(32)))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules())
    for plain, folded in zip(*found, strict=True):
        torch.testing.assert_close(plain, folded, rtol=1e-5, atol=1e-5 * float(plain.abs().max()))


def test_levels_channels_and_sizes(tmp_path):
    backbone = Backbone("efficientnet_lite0", (4, 8, 16, 32), "auto", tmp_path).train()
    levels = backbone(images())
    assert not backbone.network.training
    assert backbone.channels == (24, 40, 112, 320)
    assert [tuple(level.shape) for level in levels] == [
        (2, c, 64 // s, 64 // s) for c, s in zip((24, 40, 112, 320), (4, 8, 16, 32), strict=True)
    ]
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    torch.testing.assert_close(levels, backbone(images().float()))


def test_embedded_weights_classify_photographs(tmp_path):
    """They are loaded by position: a wrong order could not tell a cat from an espresso."""
    import_torchvision()
    import timm
    from skimage import data

    spec = backbone_spec("efficientnet_lite0")
    path = backbones._weights_file("efficientnet_lite0", "auto", tmp_path)
    network = timm.create_model(spec.architecture).eval()
    network.load_state_dict(backbones._read_state(spec, path))
    expected = {"chelsea": range(281, 286), "coffee": (504, 967, 968), "rocket": (657, 744, 812)}  # ImageNet indices
    for name, labels in expected.items():
        photograph = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float()
        height, width = photograph.shape[2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = photograph[:, :, top : top + side, left : left + side]
        pixels = F.interpolate(square, (224, 224), mode="bicubic", antialias=True) / 255
        with torch.no_grad():
            best = int(network((pixels - spec.mean[0]) / spec.std[0]).argmax())
        assert best in labels, name


def test_identities(tmp_path):
    embedded = backbone_identity("efficientnet_lite0", "auto", tmp_path)
    assert (embedded.source, len(embedded.sha256)) == ("embedded", 64)
    assert backbone_identity("resnet18", "random", tmp_path).sha256 is None
    file = tmp_path / "own.pth"
    file.write_bytes(b"weights")
    own = backbone_identity("resnet18", str(file), tmp_path)
    assert (own.name, own.source, own.tag, len(own.sha256)) == ("resnet18", "file", "own.pth", 64)


def test_own_weights_are_loaded(tmp_path):
    import_torchvision()
    import timm

    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "own.pth")
    first, second = (Backbone("resnet18", (8,), str(tmp_path / "own.pth"), tmp_path)(images()) for _ in range(2))
    assert torch.equal(first[0], second[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or no state dict"),
        (b"hello world" * 10, "damaged or no state dict"),
        ([1], "holds no state dict"),
        ({"weight": torch.zeros(2)}, "does not hold the weights of resnet18: number or shapes"),
    ],
)
def test_bad_files(content, message, tmp_path):
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=re.escape(str(path)) + ".* " + message):
        Backbone("resnet18", (8,), str(path), tmp_path)


def test_unknown_name_and_missing_file(tmp_path):
    with pytest.raises(MethodError, match=r"unknown backbone 'vgg'\n  Allowed: resnet18"):
        Backbone("vgg", (8,), "random", tmp_path)
    with pytest.raises(WeightsError, match=r"no weights file at nowhere\.pth; allowed: auto, random"):
        backbone_identity("resnet18", "nowhere.pth", tmp_path)
