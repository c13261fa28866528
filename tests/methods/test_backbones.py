import dataclasses
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.common import backbones
from methods.common.backbones import Backbone, backbone_identity
from methods.common.precision import set_precision
from methods.common.torchvision_import import import_torchvision
from methods.download import Download
from methods.errors import MethodError, WeightsError
from methods.weights.catalogue import BACKBONES, BackboneSpec, backbone_spec

STRIDES = (4, 8, 16)
CONVOLUTIONAL = {spec.architecture for spec in BACKBONES.values() if spec.kind == "convolutional"}
SMALL_VIT, REGISTERS_VIT = "vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"
ROTARY_VIT = "vit_small_patch16_dinov3"
"""Its positions are computed and not learnt."""


def images(height=64, width=64):
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def timm_model(architecture, **options):
    import_torchvision()
    import timm

    torch.manual_seed(0)
    return timm.create_model(architecture, **options).eval().requires_grad_(False)


def batch_norms(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def with_random_statistics(network):
    generator = torch.Generator().manual_seed(3)
    for norm in batch_norms(network):
        norm.running_mean.normal_(0, 0.1, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.normal_(0, 0.1, generator=generator)
    return network


def assert_same_features(found, expected):
    for some, other in zip(found, expected, strict=True):
        torch.testing.assert_close(some, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


@pytest.fixture(autouse=True)
def small_dense_network(monkeypatch):
    """DenseNet-121, a third of the one in the catalogue."""
    spec = dataclasses.replace(BACKBONES["densenet201"], architecture="densenet121")
    monkeypatch.setitem(BACKBONES, "densenet121", spec)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=[pytest.mark.slow] * ("101" in name)) for name in sorted(CONVOLUTIONAL)],
)
def test_folding_batch_norms_keeps_the_features(architecture):
    network = timm_model(architecture, features_only=True, out_indices=(1, 2, 3))
    normalised = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = with_random_statistics(network)(normalised)
    before = len(batch_norms(network))
    backbones._fold_batch_norms(network)
    # A dense layer has two, of which the first takes the outputs of all layers before it; so do the transitions'.
    dense = sum(len(block) for block in network.children() if type(block).__name__ == "DenseBlock")
    assert len(batch_norms(network)) == (before - dense - 1 if dense else 0)
    assert_same_features(network(normalised), expected)


class Sharing(nn.Module):
    """Convolutions and normalisations in each relation in which they must not be merged."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)
        self.norm = nn.BatchNorm2d(3)
        self.shared = nn.Conv2d(3, 3, 1)
        self.shared_norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])
        self.standardised = Doubled(3, 3, 1)
        self.standardised_norm = nn.BatchNorm2d(3)
        self.activated = nn.Conv2d(3, 3, 1)
        self.activated_norm = nn.BatchNorm2d(3)

    def forward(self, images):
        x = self.convolution(images)
        x = x + self.norm(x)
        first, second = self.shared_norms
        x = first(self.shared(x)) + second(self.shared(x))
        x = self.standardised_norm(self.standardised(x))
        return self.activated_norm(F.relu(self.activated(x)))


class Doubled(nn.Conv2d):
    def forward(self, images):
        return 2 * super().forward(images)


def test_what_cannot_be_folded_exactly_stays():
    torch.manual_seed(0)
    network = with_random_statistics(Sharing().eval().requires_grad_(False))
    asked = torch.randn(2, 3, 8, 8)
    expected = network(asked)
    backbones._fold_batch_norms(network)
    assert len(batch_norms(network)) == 5
    assert torch.equal(network(asked), expected)


def test_levels_channels_and_sizes(tmp_path):
    backbone = Backbone("efficientnet_lite0", (4, 8, 16, 32), "auto", tmp_path).train()
    levels = backbone(images())
    assert not backbone.network.training
    assert backbone.channels == (24, 40, 112, 320)
    assert [tuple(level.shape) for level in levels] == [
        (2, c, 64 // s, 64 // s) for c, s in zip((24, 40, 112, 320), (4, 8, 16, 32), strict=True)
    ]
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    torch.testing.assert_close(levels, backbone(images().float() / 255))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_lite0", SMALL_VIT])
@pytest.mark.parametrize("size", [(70, 98), (75, 101)])
def test_grid_is_that_of_the_features(name, size, tmp_path):
    transformer = backbone_spec(name).kind == "transformer"
    backbone = Backbone(name, (2, 5) if transformer else STRIDES, "random", tmp_path)
    if transformer and size[0] % 14:
        with pytest.raises(MethodError, match=r"patches of 14x14 pixels, which do not divide 75x101\n  Use .* of 14"):
            backbone.grid(size)
        return
    assert backbone.grid(size) == [tuple(level.shape[2:]) for level in backbone(images(*size))]
    backbone.network.to(torch.bfloat16)
    assert backbone.grid(size) == [tuple(level.shape[2:]) for level in backbone(images(*size))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_lite0", SMALL_VIT, ROTARY_VIT])
def test_an_empty_backbone_takes_the_state_of_a_full_one(name, tmp_path):
    levels = (2, 5) if backbone_spec(name).kind == "transformer" else STRIDES
    full = Backbone(name, levels, "random", tmp_path)
    before = torch.get_rng_state()
    empty = Backbone(name, levels, None, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    empty.load_state_dict(full.state_dict())
    asked = images(112, 112)  # divided by patches of 14 and of 16
    for some, other in zip(empty(asked), full(asked), strict=True):
        assert torch.equal(some, other)


@pytest.mark.slow
@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("name", [SMALL_VIT, pytest.param(REGISTERS_VIT, marks=pytest.mark.slow)])
def test_tokens_of_a_transformers_blocks(name, final_norm, tmp_path):
    model = timm_model(name, dynamic_img_size=True)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    backbone = Backbone(name, (1, 3), str(tmp_path / "own.pth"), tmp_path, final_norm=final_norm)
    asked = images(28, 42)
    tokens = model._pos_embed(model.patch_embed(backbone.normalise(asked)))
    expected = []
    for number, block in enumerate(model.blocks[:4]):
        tokens = block(tokens)
        if number in (1, 3):
            patches = (model.norm(tokens) if final_norm else tokens)[:, model.num_prefix_tokens :]
            expected.append(patches.transpose(1, 2).reshape(2, -1, 2, 3))
    assert backbone.channels == (model.embed_dim,) * 2
    assert len(backbone.network.model.blocks) == 4
    assert_same_features(backbone(asked), expected)


@pytest.mark.slow
def test_half_precision_casts_the_network_and_not_the_normalisation(tmp_path):
    backbone = Backbone("efficientnet_lite0", (8, 16), "auto", tmp_path)
    expected = backbone(images())
    backbone.networks = ("network",)
    set_precision(backbone, "bf16")
    assert {tensor.dtype for tensor in backbone.network.state_dict().values()} == {torch.bfloat16}
    assert backbone.normalise.mean.dtype == torch.float32
    for level, exact in zip(backbone(images()), expected, strict=True):
        assert level.dtype == torch.float32
        assert (level - exact).abs().max() < 0.1 * exact.abs().max()


def test_embedded_weights_classify_photographs(tmp_path):
    """They are loaded by position: a wrong order could not tell a cat from an espresso."""
    from skimage import data

    spec = backbone_spec("efficientnet_lite0")
    network = timm_model(spec.architecture)
    network.load_state_dict(backbones._pretrained_state(spec, spec.embedded(tmp_path)))
    expected = {"chelsea": range(281, 286), "coffee": (504, 967, 968), "rocket": (657, 744, 812)}  # ImageNet indices
    for name, labels in expected.items():
        photograph = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float()
        height, width = photograph.shape[2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = photograph[:, :, top : top + side, left : left + side]
        pixels = F.interpolate(square, (224, 224), mode="bicubic", antialias=True) / 255
        best = int(network((pixels - spec.mean[0]) / spec.std[0]).argmax())
        assert best in labels, name


def test_identities(tmp_path):
    embedded = backbone_identity("efficientnet_lite0", "embedded", tmp_path)
    assert (embedded.source, len(embedded.sha256)) == ("embedded", 64)
    assert backbone_identity("efficientnet_lite0", "auto", tmp_path) == embedded
    assert backbone_identity("resnet18", "random", tmp_path).sha256 is None
    file = tmp_path / "own.pth"
    file.write_bytes(b"weights")
    own = backbone_identity("resnet18", str(file), tmp_path)
    assert (own.name, own.source, own.tag, len(own.sha256)) == ("resnet18", "file", "own.pth", 64)


def test_identity_of_a_download(monkeypatch, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"weights")
    digest = backbone_identity("resnet18", str(tmp_path / "net.pth"), tmp_path).sha256
    monkeypatch.setitem(BACKBONES, "net", BackboneSpec("resnet18", "a tag", download=Download("x/net.pth", digest[:8])))
    downloaded = backbone_identity("net", "auto", tmp_path)
    assert (downloaded.source, downloaded.tag, downloaded.sha256) == ("download", "a tag", digest)


def test_trainings_of_one_network_are_two_entries():
    first, second = BACKBONES["wide_resnet50_2"], BACKBONES["wide_resnet50_2.racm_in1k"]
    assert first.architecture == second.architecture
    assert first.download.file_name == "wide_resnet50_2-95faca4d.pth"
    assert second.download.file_name == "wide_resnet50_racm-8234f177.pth"


def test_own_weights_are_loaded(tmp_path):
    model = timm_model("resnet18")
    torch.save(model.state_dict(), tmp_path / "own.pth")
    (found,) = Backbone("resnet18", (4,), str(tmp_path / "own.pth"), tmp_path)(images())
    normalised = (images() / 255 - torch.tensor(backbone_spec("resnet18").mean).view(3, 1, 1)) / torch.tensor(
        backbone_spec("resnet18").std
    ).view(3, 1, 1)
    expected = model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(normalised)))))
    assert_same_features([found], [expected])


@pytest.mark.slow
def test_old_files_of_dense_networks_are_loaded(tmp_path):
    """torchvision's files call norm1 norm.1, and are older than the counting of batches."""
    state = with_random_statistics(timm_model("densenet121")).state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    features = []
    for name, saved in (("new.pth", state), ("old.pth", old)):
        torch.save(saved, tmp_path / name)
        features.append(Backbone("densenet121", STRIDES, str(tmp_path / name), tmp_path)(images()))
    for some, other in zip(*features, strict=True):
        assert torch.equal(some, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", [SMALL_VIT, REGISTERS_VIT])
def test_official_files_of_dinov2_are_loaded(name, tmp_path):
    """They hold a token for masks; beside registers, the class token's position is added to it in timm."""
    model = timm_model(name)
    own = model.state_dict()
    official = own | {"mask_token": torch.zeros(1, 384)}
    if "reg_token" in own:
        position = torch.randn(1, 1, 384)
        official["register_tokens"] = official.pop("reg_token")
        official |= {
            "cls_token": own["cls_token"] - position,
            "pos_embed": torch.cat([position, own["pos_embed"]], 1),
        }
    torch.save(official, tmp_path / "official.pth")
    torch.save(own, tmp_path / "timm.pth")
    officials, timms = (Backbone(name, (0,), str(tmp_path / f"{kind}.pth"), tmp_path) for kind in ("official", "timm"))
    assert_same_features(officials(images(28, 28)), timms(images(28, 28)))


def test_official_files_of_dinov2_are_pinned():
    files = {spec.download.url for spec in BACKBONES.values() if spec.tag == "DINOv2 LVD-142M"}
    folders = {"s": "dinov2_vits14", "b": "dinov2_vitb14"}
    assert files == {
        f"https://dl.fbaipublicfiles.com/dinov2/{folders[size]}/dinov2_vit{size}14{registers}_pretrain.pth"
        for size in "sb"
        for registers in ("", "_reg4")
    }
    assert all(len(spec.download.sha256) == 64 for spec in BACKBONES.values() if spec.tag == "DINOv2 LVD-142M")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("bn1.weight"), "bn1.weight is missing"),
        (lambda state: state.update(more=torch.zeros(1)), "more is not part of it"),
        (lambda state: state.update({"bn1.bias": torch.zeros(7)}), r"bn1\.bias has shape \(7,\), not \(64,\)"),
    ],
)
def test_weights_of_another_network_are_refused(change, message, tmp_path):
    state = timm_model("resnet18").state_dict()
    change(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other\.pth does not hold the weights of resnet18: " + message):
        Backbone("resnet18", (8,), str(tmp_path / "other.pth"), tmp_path)


def test_unknown_names_and_levels(tmp_path):
    with pytest.raises(MethodError, match=r"unknown backbone 'vgg'\n  Allowed: resnet18"):
        Backbone("vgg", (8,), "random", tmp_path)
    with pytest.raises(MethodError, match=r"unknown backbone 'resnet8'; did you mean resnet18\?"):
        backbone_spec("resnet8")
    with pytest.raises(MethodError, match=rf"{SMALL_VIT} is no convolutional backbone\n  Allowed: resnet18, (?!.*vit)"):
        backbone_spec(SMALL_VIT, "convolutional")
    for levels in ((7,), (16, 8), (8, 8)):
        with pytest.raises(MethodError, match=r"resnet18 has no such levels: strides .*\n  Allowed: some of 2, 4, 8"):
            Backbone("resnet18", levels, "random", tmp_path)
    with pytest.raises(MethodError, match=r"no such levels: blocks 12\n  Allowed: some of 0, 1, 2"):
        Backbone(SMALL_VIT, (12,), "random", tmp_path)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet18", "nowhere.pth", r"no weights file at nowhere\.pth\n  Allowed: auto, embedded, random"),
        ("resnet18", "embedded", r"no package carries the weights of resnet18, only those of efficientnet_lite0"),
        (
            ROTARY_VIT,
            "auto",
            r"no download of vit_small\S+ is pinned: get the file from timm/vit_small_patch16_dinov3.lvd1689m at",
        ),
        (SMALL_VIT, "embedded", r"no package carries the weights of vit_small"),
    ],
)
def test_missing_weights(name, weights, message, tmp_path):
    for use in (backbone_identity, lambda *arguments: Backbone(arguments[0], (8,), *arguments[1:])):
        with pytest.raises(WeightsError, match=message):
            use(name, weights, tmp_path)


@pytest.mark.slow
def test_nothing_is_imported_while_tensors_have_no_memory():
    """What older versions of PyTorch compute while timm is imported fails there."""
    code = """
import sys, torch
from pathlib import Path
from methods.common.backbones import Backbone

class Watch:
    devices = []

    def find_spec(name, path=None, target=None):
        if name == "timm":
            Watch.devices.append(torch.get_default_device().type)

sys.meta_path.insert(0, Watch)
Backbone("efficientnet_lite0", (8,), None, Path())
assert Watch.devices == ["cpu"], Watch.devices
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stages_of_an_efficientnet(tmp_path):
    by_stage = Backbone("efficientnet_lite0", (1, 4, 5), "auto", tmp_path, stages=True)
    levels = by_stage(images())
    assert by_stage.channels == tuple(level.shape[1] for level in levels) == (24, 112, 192)
    assert by_stage.grid((64, 64)) == [(16, 16), (4, 4), (2, 2)]
    assert len(by_stage.network.blocks) == 6
    expected = Backbone("efficientnet_lite0", (4, 16), "auto", tmp_path)(images())
    torch.testing.assert_close(levels[:2], expected)
    with pytest.raises(MethodError, match=r"no such levels: stages 7\n  Allowed: some of 0, 1, 2, 3, 4, 5, 6, in"):
        Backbone("efficientnet_lite0", (7,), "random", tmp_path, stages=True)
    with pytest.raises(MethodError, match="resnet18 is no EfficientNet"):
        Backbone("resnet18", (1,), "random", tmp_path, stages=True)


@pytest.mark.slow
def test_torchvisions_efficientnet_b5_is_loaded(tmp_path):
    import_torchvision()
    from torchvision.models import efficientnet_b5

    torch.manual_seed(0)
    network = with_random_statistics(efficientnet_b5().eval().requires_grad_(False))
    torch.save(network.state_dict(), tmp_path / "b5.pth")
    backbone = Backbone("efficientnet_b5", (5,), str(tmp_path / "b5.pth"), tmp_path, stages=True)
    assert sum(len(stage) for stage in backbone.network.blocks) == 36
    assert backbone.channels == (304,)
    assert_same_features(backbone(images()), [network.features[:7](backbone.normalise(images()))])
