"""Networks, features and scores against anomalib's with the same weights: code that nobody here wrote."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from methods import l2bt
from methods.common.backbones import Backbone
from methods.common.memory_bank import PatchDistances
from methods.common.nearest import rows
from methods.common.patch_features import PatchFeatures
from methods.common.seeding import reproducible
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import Size
from methods.fastflow import STRIDES, FastFlowConfig, FastFlowModule
from methods.from_anomalib.models import anomalib_models
from methods.l2bt import SMOOTHING, L2btConfig, L2btModule
from methods.rdpp.networks import Decoder

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("anomalib"), reason="anomalib is not installed: pip install anomaly-bench[anomalib]"
)

SIZE = (64, 96)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded():
    anomalib_models()  # imports it, with the warnings of its imports kept quiet
    with reproducible(0, CPU):
        yield


def copy_layers(theirs: nn.Module, ours: nn.Module, inputs: object, their_inputs: object) -> None:
    """Give ours the values of their layers, the n-th to run those of the n-th; kinds and shapes must agree.

    Values are drawn first where a fresh layer has the same one everywhere, as normalisations do.
    """
    randomise_norms(theirs)
    sources, targets = executed(theirs, their_inputs), executed(ours, inputs)
    assert [type(layer) for layer in sources] == [type(layer) for layer in targets]
    for source, target in zip(sources, targets, strict=True):
        target.load_state_dict(source.state_dict())


def executed(module: nn.Module, inputs: object) -> list[nn.Module]:
    """Layers with parameters, each once, in the order in which they run."""
    found: list[nn.Module] = []
    own = [layer for layer in module.modules() if next(layer.parameters(recurse=False), None) is not None]
    hooks = [layer.register_forward_hook(lambda layer, *_: found.append(layer)) for layer in own]
    with torch.no_grad():
        module.eval()(*inputs)
    for hook in hooks:
        hook.remove()
    assert len(found) == len(set(found)) == len(own)
    return found


def randomise_norms(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                values.data.uniform_(0.5, 1.5)
            for values in (layer.bias, layer.running_mean):
                values.data.normal_(0, 0.1)
        elif isinstance(layer, nn.LayerNorm):
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_(0, 0.1)


def same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert float(theirs.std()) > 1e-3 * float(theirs.abs().mean()), "nothing to compare: all values are alike"
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().amax()))


def efficient_ad(size: Size, padding: bool) -> tuple[EfficientAdNetwork, nn.Module]:
    """Networks with the same weights, ours with the border of zeros that anomalib has."""
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel, EfficientAdModelSize

    ours = EfficientAdNetwork(size, padding=padding, map_border="zeros").eval()
    theirs = EfficientAdModel(384, EfficientAdModelSize[size], padding=padding, pad_maps=not padding).eval()
    pixels = torch.rand(1, 3, 256, 256)
    for name in ("teacher", "student"):
        copy_layers(getattr(theirs, name), getattr(ours, name), (pixels,), (pixels,))
    copy_layers(theirs.ae, ours.autoencoder, (pixels,), (pixels, (256, 256)))
    return ours, theirs


def set_target(ours: EfficientAdNetwork, theirs: nn.Module) -> None:
    ours.mean.normal_(0, 0.01)
    ours.std.uniform_(0.02, 0.05)
    theirs.mean_std["mean"].data.copy_(ours.mean)
    theirs.mean_std["std"].data.copy_(ours.std)


def set_quantiles(ours: EfficientAdNetwork, theirs: nn.Module, quantiles: list[list[float]]) -> None:
    ours.quantiles.copy_(torch.tensor(quantiles))
    for row, name in enumerate(("st", "ae")):
        for column, end in enumerate("ab"):
            theirs.quantiles[f"q{end}_{name}"].data.fill_(quantiles[row][column])


@pytest.mark.slow
@pytest.mark.parametrize("size", ["S", "M"])
def test_efficientad_networks(size: Size) -> None:
    ours, theirs = efficient_ad(size, padding=False)
    images = torch.rand(1, 3, 256, 256)
    prepared = ours.prepare(images)
    with torch.no_grad():
        same(ours.teacher(prepared), theirs.teacher(images))
        same(ours.student(prepared), theirs.student(images))
        same(ours.autoencoder(prepared), theirs.ae(images, (256, 256)))


@pytest.mark.parametrize("padding", [False, True])
def test_efficientad_maps_and_scores(padding: bool) -> None:
    ours, theirs = efficient_ad("S", padding)
    set_target(ours, theirs)
    # The border of zeros comes before anomalib's normalisation and after ours: they are the same where that keeps zero.
    set_quantiles(ours, theirs, [[0.3, 2.0], [0.01, 0.4]] if padding else [[0.0, 2.0], [0.0, 0.4]])
    images = torch.rand(2, 3, 256, 256)
    with torch.no_grad():
        maps, scores = ours(images)
        expected = theirs(images)
    same(maps, expected.anomaly_map[:, 0])
    same(scores, expected.pred_score[:, 0])


def resnet_file(folder: Path) -> Path:
    """A ResNet-18 with random values, normalisations included, as a file."""
    import timm

    network = timm.create_model("resnet18")
    randomise_norms(network)
    torch.save(network.state_dict(), folder / "resnet18.pth")
    return folder / "resnet18.pth"


def load_backbone(theirs: nn.Module, file: Path) -> None:
    state = torch.load(file, weights_only=True)
    theirs.load_state_dict({name: state[name] for name in theirs.state_dict()})


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (images - mean) / std


def test_patchcore_features_and_scores(tmp_path: Path) -> None:
    """anomalib takes the mean of each channel's neighbourhood; so do we with as many numbers as channels.

    Of two levels ours has as many numbers each, so that those of the second are means of two channels.
    """
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    file = resnet_file(tmp_path)
    features = PatchFeatures(Backbone("resnet18", (8, 16), str(file), tmp_path), 256, SIZE, level_dim=128)
    theirs = PatchcoreModel(["layer2", "layer3"], "resnet18", pre_trained=False, num_neighbors=1)
    load_backbone(theirs.feature_extractor.feature_extractor, file)
    whole = theirs.generate_embedding

    def paired(levels: dict[str, Tensor]) -> Tensor:
        embedding = whole(levels)
        deeper = embedding[:, 128:].unflatten(1, (128, 2)).mean(2)
        return torch.cat([embedding[:, :128], deeper], dim=1)

    theirs.generate_embedding = paired
    images = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        same(rows(features(images)), theirs.train()(normalised(images)))

        bank = rows(features(torch.rand(3, 3, *SIZE)))
        theirs.eval().memory_bank = bank
        module = PatchDistances(features, bank, SIZE, neighbours=1, sigma=4.0)
        _, scores = module(images)
        expected = theirs(normalised(images))
    # Ours are squared distances, as the official code's; a difference of large squares has fewer digits.
    same(scores.sqrt(), expected.pred_score, tolerance=1e-4)


def test_fastflow(tmp_path: Path) -> None:
    from anomalib.models.image.fastflow.loss import FastflowLoss
    from anomalib.models.image.fastflow.torch_model import FastflowModel

    file = resnet_file(tmp_path)
    config = FastFlowConfig("resnet18", str(file), SIZE, flow_steps=4)
    ours = FastFlowModule(Backbone("resnet18", STRIDES, str(file), tmp_path), config)
    theirs = FastflowModel(SIZE, "resnet18", pre_trained=False, flow_steps=4)
    load_backbone(theirs.feature_extractor, file)
    randomise_norms(theirs.norms)
    for flow, norm, block in zip(ours.flows, theirs.norms, theirs.fast_flow_blocks, strict=True):
        flow.norm.load_state_dict(norm.state_dict())
        for source in block.module_list:
            source.global_scale.data.add_(torch.randn_like(source.global_scale))
            source.global_offset.data.normal_(0, 0.1)
        flow.flow.load_state_dict(block.state_dict())

    images = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        hidden, jacobians = theirs.train()(normalised(images))
        torch.testing.assert_close(
            ours.loss(ours.backbone(images)), FastflowLoss()(hidden, jacobians), rtol=1e-5, atol=0
        )
        maps, scores = ours.eval()(images)
        expected = theirs.eval()(normalised(images))
        same(maps, expected.anomaly_map[:, 0])
        same(scores, expected.pred_score[:, 0])

        # In float32 the part of the determinant that depends on the image drowns in the rest.
        parts = zip(ours.flows, theirs.norms, theirs.fast_flow_blocks, ours.backbone(images), strict=True)
        for flow, norm, block, level in parts:
            own, own_jacobian = flow.double()(level.double())
            latents, jacobian = block.double()(norm.double()(level.double()))
            same(own, latents, tolerance=1e-10)
            assert abs(jacobian[0] - jacobian[1]) > 1e-3
            torch.testing.assert_close(own_jacobian, jacobian, rtol=1e-12, atol=0)


@pytest.mark.slow
def test_bottleneck_and_decoder_of_reverse_distillation() -> None:
    from anomalib.models.components.backbone import get_decoder
    from anomalib.models.image.reverse_distillation.components import get_bottleneck_layer

    # Unasked, anomalib's bottleneck is half as wide as the decoder and the bottleneck here.
    bottleneck = get_bottleneck_layer("wide_resnet50_2", width_per_group=128)
    theirs = nn.Sequential(bottleneck, get_decoder("wide_resnet50_2"))
    # Of the original code, and never run.
    del theirs[0].conv4, theirs[0].bn4
    ours = Decoder((256, 512, 1024))
    levels = [torch.randn(2, 256, 16, 24), torch.randn(2, 512, 8, 12), torch.randn(2, 1024, 4, 6)]
    copy_layers(theirs, ours, (levels,), (levels,))
    with torch.no_grad():
        for own, expected in zip(ours(levels), theirs(levels), strict=True):
            same(own, expected)
        # Statistics of few values: float32 shows rounding alone.
        ours, theirs, levels = ours.double().train(), theirs.double().train(), [level.double() for level in levels]
        for own, expected in zip(ours(levels), theirs(levels), strict=True):
            same(own, expected, tolerance=1e-9)


def l2bt_pair(sides: tuple[int, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[L2btModule, nn.Module]:
    """Both on the same small transformer with random values, maps smoothed by mean filters of these sides.

    anomalib takes no other transformer than the large one with its published weights.
    """
    import timm
    from anomalib.models.image.l2bt.torch_model import L2BTModel
    from timm.models import vision_transformer

    name, size = "vit_small_patch14_reg4_dinov2", (84, 112)
    create = timm.create_model
    # It changes how timm resizes positions, ours too: until the end of the test.
    monkeypatch.setattr(vision_transformer, "resample_abs_pos_embed", vision_transformer.resample_abs_pos_embed)
    with monkeypatch.context() as patch:
        patch.setattr(timm, "create_model", lambda _, **options: create(name, **{**options, "pretrained": False}))
        theirs = L2BTModel(blur_repeats_l=sides.count(5), blur_repeats_u=sides.count(7))
    teacher = theirs.teacher.fe.feature_extractor
    randomise_norms(teacher)
    for block in teacher.blocks:  # which a fresh transformer all but switches off
        for scale in (block.ls1, block.ls2):
            scale.gamma.data.uniform_(0.5, 1.5)
    torch.save(teacher.state_dict(), folder / "teacher.pth")

    monkeypatch.setattr(l2bt, "SMOOTHING", sides)
    config = L2btConfig(name, str(folder / "teacher.pth"), image_size=size, hidden_dim=384)
    backbone = Backbone(name, config.levels, config.backbone_weights, folder, final_norm=True)
    ours = L2btModule(backbone, config)
    features = (torch.rand(2, 384),)
    copy_layers(theirs.forward_net, ours.forward_student, features, features)
    copy_layers(theirs.backward_net, ours.backward_student, features, features)
    return ours.eval(), theirs


@pytest.mark.slow
def test_l2bt_students_and_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = l2bt_pair(SMOOTHING, tmp_path, monkeypatch)
    images = torch.rand(2, 3, *ours.config.image_size)
    with torch.no_grad():
        levels = ours.backbone(images)
        features = theirs.extract_teacher_features(normalised(images))
        for level, tokens in zip(levels, features, strict=True):
            same(level.flatten(2).transpose(1, 2), tokens)
        shallow, deep = (rows(level) for level in levels)
        of_shallow, of_deep = theirs.predict_student_features(*features)
        same(ours.backward_student(deep), of_shallow.flatten(0, 1))
        same(ours.forward_student(shallow), of_deep.flatten(0, 1))
        expected = theirs.train()(normalised(images))["loss"]
        torch.testing.assert_close(ours.loss(shallow, deep), expected, rtol=1e-5, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("sides", [SMOOTHING, ()], ids=["smoothed", "not smoothed"])
def test_l2bt_maps_and_scores(sides: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smoothed maps are the same as far from the border as the filters reach, scores are where nothing is smoothed.

    For what lies beyond the border anomalib's filters take zeros, which darkens it; ours mirror the map there.
    """
    ours, theirs = l2bt_pair(sides, tmp_path, monkeypatch)
    images = torch.rand(2, 3, *ours.config.image_size)
    with torch.no_grad():
        maps, scores = ours(images)
        expected = theirs.eval()(normalised(images))
    reach = sum(side // 2 for side in sides)
    inner = (slice(None), *(slice(reach, side - reach) for side in ours.config.image_size))
    same(maps[inner], expected.anomaly_map[:, 0][inner])
    if not sides:
        same(scores, expected.pred_score)
