"""Networks, features and scores against anomalib's with the same weights: code that nobody here wrote."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

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


class Levels(nn.Module):
    """Two levels of features, drawn anew for each image, in place of a backbone."""

    channels = (24, 40)

    def grid(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        return [(size[0] // 14, size[1] // 14)] * 2

    def forward(self, images: Tensor) -> list[Tensor]:
        height, width = self.grid((images.shape[2], images.shape[3]))[0]
        generator = torch.Generator().manual_seed(int(images.sum()))
        return [torch.randn(len(images), channels, height, width, generator=generator) for channels in self.channels]


def test_l2bts_students_and_map() -> None:
    """Students to rounding; maps likewise where smoothing does not reach the border, which theirs pads with zeros.

    Image scores are means of a map's highest values: those of the whole maps differ by the border, so theirs is taken
    of the map that is compared.
    """
    from anomalib.models.image.l2bt.anomaly_map import L2BTAnomalyMapGenerator
    from anomalib.models.image.l2bt.students import FeatureProjectionMLP

    shallow, deep = Levels.channels
    size = (112, 168)
    theirs = [FeatureProjectionMLP(shallow, deep), FeatureProjectionMLP(deep, shallow)]
    hidden = next(layer for layer in theirs[0].modules() if isinstance(layer, nn.Linear)).out_features
    ours = L2btModule(Levels(), L2btConfig(hidden_dim=hidden, image_size=size)).eval()  # type: ignore[arg-type]
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    middle, last = (level.flatten(2).transpose(1, 2) for level in ours.backbone(images))
    copy_layers(theirs[0], ours.forward_student, (middle,), (middle,))
    copy_layers(theirs[1], ours.backward_student, (last,), (last,))
    with torch.inference_mode():
        predicted_last, predicted_middle = theirs[0](middle), theirs[1](last)
        same(ours.forward_student(middle), predicted_last)
        same(ours.backward_student(last), predicted_middle)
        their_maps, _ = L2BTAnomalyMapGenerator(14)(middle, last, predicted_middle, predicted_last, size)
        maps, scores = ours(images)
    border = sum(side // 2 for side in SMOOTHING)
    inner = (slice(None), slice(border, -border), slice(border, -border))
    same(maps[inner], their_maps.reshape(maps.shape)[inner], 1e-4)
    highest = maps.flatten(1).topk(round(0.001 * maps[0].numel())).values
    same(scores, highest.mean(1))
