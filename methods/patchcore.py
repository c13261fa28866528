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
from methods.weights.catalogue import backbone_spec
from methods.weights.files import WeightIdentity

STRIDES = (8, 16)


@dataclass(frozen=True)
class PatchCoreConfig:
    """Options of PatchCore; the defaults are those of the EfficientAD paper's comparison (its appendix B).

    Attributes:
        backbone: A convolutional one of ``methods.weights.catalogue.BACKBONES``.
        backbone_weights: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        image_size: Height and width in pixels.
        dim: Numbers per patch, even.
        coreset_fraction: Part of the training patches kept as memory bank.
        neighbours: A patch's score is its mean squared distance to so many vectors of the memory bank.
        sigma: Of the Gaussian that smooths anomaly maps, in pixels of the input.
        search: ``torch``, or ``faiss`` if it is installed; they find the same distances up to float32 rounding.
    """

    backbone: str = "wide_resnet101_2"
    backbone_weights: str = "auto"
    image_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = (224, 224)
    dim: Annotated[int, Field(gt=0, multiple_of=2)] = 1024
    coreset_fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    neighbours: Annotated[int, Field(gt=0)] = 1
    sigma: Annotated[float, Field(gt=0)] = 4.0
    search: Search = "torch"

    def __post_init__(self) -> None:
        backbone_spec(self.backbone, "convolutional")


class PatchCore(Detector[PatchCoreConfig]):
    """PatchCore with the official code's feature pipeline and scores."""

    title = "PatchCore"
    source = "Roth et al., CVPR 2022"
    Config = PatchCoreConfig
    presets: ClassVar = {"embedded": {"backbone": "efficientnet_lite0"}}
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
            MethodError: ``search`` is ``faiss`` and that cannot search here.
            WeightsError: The backbone's weights cannot be had.
        """
        if self.config.search == "faiss":
            check_faiss(context.device)
        backbone = Backbone(self.config.backbone, STRIDES, self.config.backbone_weights, context.weights_dir)
        features = PatchFeatures(backbone, self.config.dim, self.config.image_size).to(context.device)
        bank = memory_bank(features, train, self.config.coreset_fraction, context)
        self.fitted = _module(features, bank, self.config).to(context.device).eval()
        self._faiss = None
        self.implementation = {"search": self.config.search}

    @classmethod
    def build_module(cls, config: PatchCoreConfig, state: Mapping[str, Tensor]) -> PatchDistances:
        """Backbone and memory bank; it searches by torch, whatever the option ``search`` says."""
        backbone = Backbone(config.backbone, STRIDES, None, Path())
        features = PatchFeatures(backbone, config.dim, config.image_size)
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


def _module(features: PatchFeatures, bank: Tensor, config: PatchCoreConfig) -> PatchDistances:
    return PatchDistances(features, bank, config.image_size, config.neighbours, config.sigma)
