"""PatchCore-Ensemble (Roth et al., CVPR 2022): PatchCore on several networks, whose calibrated maps are averaged."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.memory_bank import PatchDistances, memory_bank
from methods.common.patch_features import PatchFeatures
from methods.detector import Detector, FitContext, ImageSet, Progress
from methods.errors import MethodError
from methods.weights.catalogue import backbone_spec
from methods.weights.files import WeightIdentity

BATCH_SIZE = 8

Strides = Annotated[str, Field(pattern=r"^\d+(\+\d+)*$")]
"""Of a member's levels, in pixels: ``8+16``."""


@dataclass(frozen=True)
class PatchCoreEnsembleConfig:
    """Options of PatchCore-Ensemble; the defaults are those of the EfficientAD paper's comparison (its appendix B).

    Attributes:
        backbones: Of the members, convolutional ones of ``methods.weights.catalogue.BACKBONES``.
        backbone_weights: Of each member, ``auto``, ``embedded``, ``random`` or the path of a state dict.
        strides: Of each member, the strides of its levels in pixels, finest first: ``8+16``.
        image_size: Height and width in pixels.
        dim: Numbers per patch, even.
        coreset_fraction: Part of the training patches that each member keeps as memory bank.
        neighbours: A patch's score is its mean squared distance to so many vectors of the memory bank.
        sigma: Of the Gaussian that smooths anomaly maps, in pixels of the input.
    """

    backbones: tuple[str, ...] = ("wide_resnet101_2", "resnext101_32x8d", "densenet201")
    backbone_weights: tuple[str, ...] = ("auto", "auto", "auto")
    strides: tuple[Strides, ...] = ("8+16", "8+16", "8+16")
    image_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = (320, 320)
    dim: Annotated[int, Field(gt=0, multiple_of=2)] = 384
    coreset_fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    neighbours: Annotated[int, Field(gt=0)] = 1
    sigma: Annotated[float, Field(gt=0)] = 4.0

    def __post_init__(self) -> None:
        for name in self.backbones:
            backbone_spec(name, "convolutional")
        counts = len(self.backbones), len(self.backbone_weights), len(self.strides)
        if len(set(counts)) > 1 or not self.backbones:
            raise MethodError(
                "an ensemble has backbones, backbone_weights and strides for each member, and they are "
                f"{', '.join(map(str, counts))}\n  Give as many of each, at least one."
            )


class PatchCoreEnsembleModule(nn.Module):
    """The mean of the maps and scores of several memory banks, each on the scale of held-out normal images.

    Args:
        members: PatchCore on one network each.

    Attributes:
        map_ranges: Of each member, the smallest and the largest value of all maps of held-out images, (members, 2).
        score_ranges: Of each member, the smallest and the largest score of a held-out image, (members, 2).
    """

    map_ranges: Tensor
    score_ranges: Tensor

    def __init__(self, members: list[PatchDistances]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.networks = tuple(f"members.{number}.features.backbone.network" for number in range(len(members)))
        self.register_buffer("map_ranges", torch.empty(len(members), 2))
        self.register_buffer("score_ranges", torch.empty(len(members), 2))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, H, W) and image scores (B,) of images (B, 3, H, W), uint8 0-255 or floating 0-1.

        Those of held-out normal images are from 0 to 1, others may be beyond.
        """
        maps, scores = zip(*(member(images) for member in self.members), strict=True)
        return calibrated_mean(maps, self.map_ranges), calibrated_mean(scores, self.score_ranges)

    @torch.no_grad()
    def calibrate(self, number: int, batches: Iterator[Tensor]) -> None:
        """Measure the ranges of a member on batches of held-out normal images (B, 3, H, W)."""
        maps, scores = zip(*(self.members[number](images) for images in batches), strict=True)
        self.map_ranges[number] = torch.stack(torch.cat(maps).aminmax())
        self.score_ranges[number] = torch.stack(torch.cat(scores).aminmax())


def calibrated_mean(values: tuple[Tensor, ...], ranges: Tensor) -> Tensor:
    """Mean over members of values of one shape, each (v - smallest) / (largest - smallest).

    Of one image, or of equal ones, the smallest score is the largest, and nothing says how scores vary: they are taken
    relative to zero, the least that a distance can be.

    Args:
        values: Of each member.
        ranges: Smallest and largest value on held-out normal images, (members, 2).
    """
    smallest, largest = ranges.unbind(1)
    smallest = torch.where(largest > smallest, smallest, 0)
    widths = (largest - smallest).clamp_min(torch.finfo(ranges.dtype).tiny)
    parts = zip(values, smallest.unbind(), widths.unbind(), strict=True)
    return torch.stack([(value - least) / width for value, least, width in parts]).mean(0)


class PatchCoreEnsemble(Detector[PatchCoreEnsembleConfig]):
    """PatchCore-Ensemble, calibrated on held-out normal images.

    The official code scales each member by the minimum and maximum over the whole test set. That takes all test images
    at once, and lets each decide about the others: here held-out normal images stand for them.
    """

    title = "PatchCore-Ens"
    source = "Roth et al., CVPR 2022"
    Config = PatchCoreEnsembleConfig
    # One network three times, seen at other depths each time: what an ensemble can be of a single set of weights.
    presets: ClassVar = {
        "embedded": {
            "backbones": ("efficientnet_lite0", "efficientnet_lite0", "efficientnet_lite0"),
            "strides": ("8+16", "4+8", "16+32"),
        }
    }
    uses_validation = True
    packages = ("torch", "timm", "numba")
    fused = "batch norms; neighbourhoods and both poolings as one convolution"

    def __init__(self, config: PatchCoreEnsembleConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: PatchCoreEnsembleConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the weights of each member's backbone."""
        named = zip(config.backbones, config.backbone_weights, strict=True)
        return [backbone_identity(name, weights, weights_dir) for name, weights in named]

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Fill the memory bank of each member, and calibrate it on held-out images.

        Raises:
            MethodError: There are no training or validation images.
            WeightsError: A backbone's weights cannot be had.
        """
        for kind, images in (("training", train), ("validation", validation)):
            if len(images) == 0:
                raise MethodError(f"PatchCore-Ens needs at least one {kind} image and was given none")
        members = []
        for features in _features(self.config, self.config.backbone_weights, context.weights_dir):
            bank = memory_bank(features.to(context.device), train, self.config.coreset_fraction, context)
            members.append(_member(features, bank, self.config).to(context.device))
        module = PatchCoreEnsembleModule(members).to(context.device).eval()
        for number in range(len(members)):
            batches = (images.to(context.device) for images in validation.batches(BATCH_SIZE))
            module.calibrate(number, batches)
            context.progress(Progress("calibration", number + 1, len(members)))
        self.fitted = module

    @classmethod
    def build_module(cls, config: PatchCoreEnsembleConfig, state: Mapping[str, Tensor]) -> PatchCoreEnsembleModule:
        """Backbones, and memory banks as large as the state's."""
        members = []
        for number, features in enumerate(_features(config, (None,) * len(config.backbones), Path())):
            bank = state.get(f"members.{number}.bank", torch.empty(0))
            members.append(_member(features, torch.empty(len(bank), config.dim), config))
        return PatchCoreEnsembleModule(members)


def _features(
    config: PatchCoreEnsembleConfig, weights: tuple[str | None, ...], weights_dir: Path
) -> Iterator[PatchFeatures]:
    """Patch features of each member."""
    for name, strides, source in zip(config.backbones, config.strides, weights, strict=True):
        levels = tuple(int(stride) for stride in strides.split("+"))
        yield PatchFeatures(Backbone(name, levels, source, weights_dir), config.dim, config.image_size)


def _member(features: PatchFeatures, bank: Tensor, config: PatchCoreEnsembleConfig) -> PatchDistances:
    return PatchDistances(features, bank, config.image_size, config.neighbours, config.sigma)
