"""EfficientAD (Batzner, Heckler, König, WACV 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.detector import Detector, FitContext, ImageSet
from methods.efficientad.networks import INPUT_SIZE, EfficientAdNetwork
from methods.efficientad.pdn import Size, normalise
from methods.efficientad.teachers import load_teacher, teacher_identity
from methods.efficientad.training import TrainingOptions, measure_quantiles, train_network
from methods.weights.files import WeightIdentity

PAPER_STEPS = 70_000
IMAGENET_IMAGES = 1_281_167
"""Of the training set of ILSVRC 2012, the paper's pretraining images."""


@dataclass(frozen=True)
class EfficientAdConfig:
    """Options of EfficientAD; the defaults are the paper's.

    Attributes:
        teacher: ``auto`` (the public teachers distilled from WideResNet-101), ``embedded``, ``random``, or the path
            of a file that ``bench distill`` wrote.
        padding: Pad in teacher and student as Tables 5 and 6 say. The paper's results and timings are those of the
            unpadded networks (its Appendix E).
        training_steps: Optimiser steps at one image each.
        learning_rate: Of Adam, for the first 95 % of the steps; a tenth of it afterwards.
        weight_decay: Of Adam.
        precision: ``bf16`` runs the networks under bfloat16 autocast, in training and inference.
    """

    teacher: str = "auto"
    padding: bool = False
    training_steps: Annotated[int, Field(gt=0)] = PAPER_STEPS
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    precision: Literal["fp32", "bf16"] = "fp32"


class EfficientAd(Detector):
    """What EfficientAD-S and -M share: a student that imitates a teacher on normal images only.

    Attributes:
        network: Teacher, student and autoencoder, once fitted.
    """

    source = "Batzner, Heckler, König, WACV 2024"
    Config = EfficientAdConfig
    uses_photographs = True
    input_size = INPUT_SIZE
    size: ClassVar[Size]
    """Which patch description network."""

    def __init__(self, config: EfficientAdConfig) -> None:
        self.config = config
        self.network: EfficientAdNetwork | None = None

    @classmethod
    def weights(cls, config: EfficientAdConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the teacher.

        Raises:
            WeightsError: Its file is missing or wrong.
        """
        return [teacher_identity(cls.size, config.teacher, weights_dir)]

    @classmethod
    def deviations(cls, config: EfficientAdConfig, context: FitContext) -> list[str]:
        """What distinguishes a row from the paper's: teacher, penalty images, length, optimiser, precision, padding."""
        found = []
        if config.teacher != "auto":
            named = config.teacher in ("embedded", "random")
            found.append(f"teacher {config.teacher if named else Path(config.teacher).name}")
        if context.photographs is None:
            found.append("no pretraining penalty")
        elif not _is_imagenet(context.photographs.identity):
            found.append(f"pretraining penalty on {context.photographs.identity}")
        steps = context.training_steps(config.training_steps)
        if steps != PAPER_STEPS:
            found.append(f"{steps} of {PAPER_STEPS} training steps")
        paper = EfficientAdConfig()
        for name in ("learning_rate", "weight_decay", "precision"):
            if getattr(config, name) != getattr(paper, name):
                found.append(f"{name.replace('_', ' ')} {getattr(config, name)}")
        if config.padding:
            found.append("padded networks")
        return found

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train on normal images of 256x256 pixels and normalise the maps on held-out ones (Algorithm 1).

        Raises:
            WeightsError: The teacher's file is missing or wrong.
            MethodError: There are no validation images, or no photographs in their folder.
        """
        bf16 = self.config.precision == "bf16"
        options = TrainingOptions(self.config.learning_rate, self.config.weight_decay, bf16)
        self.training_steps = context.training_steps(self.config.training_steps)
        devices = [context.device] if context.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(context.seed)
            network = EfficientAdNetwork(self.size, padding=self.config.padding)
            load_teacher(network.teacher, self.size, self.config.teacher, context.weights_dir)
            network = nn.utils.convert_conv2d_weight_memory_format(network.to(context.device), torch.channels_last)
            self.losses = train_network(network, train, context, self.training_steps, options)
        measure_quantiles(network, validation, context, options)
        self.network = network

    @torch.inference_mode()
    def anomaly_map(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, 3, 256, 256) to float32 maps (B, 256, 256) on the fitted device (Algorithm 2).

        On validation images 90 % of each of the two combined maps lie below 0 and 99.5 % below 0.1.
        """
        if self.network is None:
            raise RuntimeError("anomaly_map before fit")
        device = self.network.mean.device
        batch = normalise(images.to(device)).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            maps: Tensor = self.network(batch)
        return maps


def _is_imagenet(identity: str) -> bool:
    return identity.lower().startswith(f"imagenet ({IMAGENET_IMAGES} images")


class EfficientAdS(EfficientAd):
    """EfficientAD with the small patch description network of Table 5."""

    title = "EfficientAD-S"
    size = "S"
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {"embedded": {"teacher": "embedded"}}


class EfficientAdM(EfficientAd):
    """EfficientAD with the medium patch description network of Table 6."""

    title = "EfficientAD-M"
    size = "M"
