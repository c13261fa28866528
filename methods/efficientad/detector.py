"""EfficientAD (Batzner, Heckler, König, WACV 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field
from torch import Tensor

from methods.common.precision import TrainingPrecision, check_precision
from methods.detector import Detector, FitContext, ImageSet
from methods.efficientad import table_4
from methods.efficientad.fused import FusedEfficientAd
from methods.efficientad.networks import DROPOUT, INPUT_SIZE, EfficientAdNetwork, MapBorder
from methods.efficientad.pdn import Size
from methods.efficientad.step import HARD_QUANTILE, choose_step
from methods.efficientad.teachers import load_teacher, teacher_files, teacher_identity
from methods.efficientad.training import (
    QUANTILES,
    Augmentation,
    MapNormalisation,
    TrainingOptions,
    measure_normalisation,
    train_network,
)
from methods.efficientad.winograd import take_fewer_multiplications
from methods.errors import MethodError
from methods.weights.files import WeightIdentity


@dataclass(frozen=True)
class EfficientAdConfig:
    """Options of EfficientAD; the defaults are the paper's.

    Attributes:
        teacher: ``auto`` (the public teachers distilled from WideResNet-101), ``embedded``, ``random``, or the path
            of a file that ``bench distill efficientad`` wrote.
        shared_student: One student imitates both teacher and autoencoder. If not, each has its own, with half the
            outputs, as before Table 4's row "Shared student".
        padding: Pad in teacher and student as Tables 5 and 6 say. The paper's results and timings are those of the
            unpadded networks (its Appendix E).
        map_border: The unpadded networks give maps of 56x56, the inner part of the 64x64 that tile the image, and the
            paper does not say what stands at the border. ``replicate``: the nearest value, before the maps are resized
            and their quantiles measured. ``zeros``: zero, after the maps have been normalised by quantiles of the
            56x56 values alone, as nelson1425/EfficientAD does; it rates defects at the border of the image low.
        training_steps: Optimiser steps at one image each.
        learning_rate: Of Adam, for the first 95 % of the steps; a tenth of it afterwards.
        weight_decay: Of Adam.
        p_hard: The student's loss takes those squared differences to the teacher that reach this quantile of the
            image's; 0 takes all, which is the loss of S-T (section 3.2, Table 3).
        pretraining_penalty: Hinder the student from imitating the teacher on pretraining images, if there are any.
        augmentation: Of whose training images colours are changed: ``autoencoder``, its and those of the student that
            imitates it; ``both``, also those on which a student imitates the teacher; ``none``.
        dropout: Probability of the autoencoder's dropout layers, in training.
        map_normalisation: ``quantiles`` of validation maps become 0 and 0.1 (section 3.4); ``mean_std``, their mean
            becomes 0 and their variance 1, as in GCAD; ``none`` averages the maps as they are.
        quantile_a: Level of the quantile that becomes 0 (Table 3).
        quantile_b: Level of the quantile that becomes 0.1.
        training_precision: ``bf16`` trains the networks under bfloat16 autocast; the losses stay float32.
        step: How a training step is computed, with the same result up to rounding: ``reference``, as Algorithm 1
            reads; ``fast``, without what no loss reads and with fewer multiplications, on a CPU only; ``auto``, the
            latter on a CPU.
    """

    teacher: str = "auto"
    shared_student: bool = True
    padding: bool = False
    map_border: MapBorder = "replicate"
    training_steps: Annotated[int, Field(gt=0)] = 70_000
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    p_hard: Annotated[float, Field(ge=0, lt=1)] = HARD_QUANTILE
    pretraining_penalty: bool = True
    augmentation: Augmentation = "autoencoder"
    dropout: Annotated[float, Field(ge=0, lt=1)] = DROPOUT
    map_normalisation: MapNormalisation = "quantiles"
    quantile_a: Annotated[float, Field(ge=0, le=1)] = QUANTILES[0]
    quantile_b: Annotated[float, Field(ge=0, le=1)] = QUANTILES[1]
    training_precision: TrainingPrecision = "fp32"
    step: Literal["auto", "reference", "fast"] = "auto"

    def __post_init__(self) -> None:
        if self.padding and self.map_border != "replicate":
            raise MethodError(
                f"map_border={self.map_border} is about the maps of unpadded networks, and padding=True was given\n"
                "  Allowed: one of the two."
            )
        if self.quantile_a >= self.quantile_b:
            raise MethodError(
                f"quantile_a={self.quantile_a} is not below quantile_b={self.quantile_b}\n"
                f"  The paper's are {QUANTILES[0]} and {QUANTILES[1]}."
            )
        if self.step == "fast" and not self.shared_student:
            raise MethodError(
                "step=fast is for a shared student, and shared_student=False was given\n"
                "  Allowed with it: auto and reference, which are the same there."
            )


class EfficientAd(Detector[EfficientAdConfig]):
    """What EfficientAD-S and -M share: a student that imitates a teacher on normal images only."""

    source = "Batzner, Heckler, König, WACV 2024"
    Config = EfficientAdConfig
    uses_validation = True
    uses_photographs = True
    packages = ("torch", "torchvision")
    without_effect = frozenset({"step"})
    input_size = INPUT_SIZE
    size: ClassVar[Size]
    """Which patch description network."""

    def __init__(self, config: EfficientAdConfig) -> None:
        self.config = config

    @classmethod
    def weights(cls, config: EfficientAdConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the teacher.

        Raises:
            WeightsError: Its file is missing or wrong.
        """
        return [teacher_identity(cls.size, config.teacher, weights_dir)]

    @classmethod
    def weight_files(cls, config: EfficientAdConfig) -> list[str]:
        """Name the file of the teacher."""
        return teacher_files(cls.size, config.teacher)

    @classmethod
    def training_length(cls, config: EfficientAdConfig) -> int:
        """Optimiser steps at training scale 1."""
        return config.training_steps

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train on normal images of 256x256 pixels and normalise the maps on held-out ones (Algorithm 1).

        Raises:
            WeightsError: The teacher's file is missing or wrong.
            MethodError: There are no training or validation images, or no photographs in their folder; or the device
                does not take the training precision or step.
        """
        config = self.config
        if len(train) == 0:
            raise MethodError("EfficientAD needs at least one training image and was given none")
        if len(validation) == 0 and config.map_normalisation != "none":
            raise MethodError("EfficientAD normalises its maps on validation images and was given none")
        check_precision(config.training_precision, context.device, forced=context.force_precision)
        step = choose_step(config.step if config.shared_student else "reference", context.device)
        options = TrainingOptions(
            config.learning_rate,
            config.weight_decay,
            config.training_precision,
            step,
            p_hard=config.p_hard,
            penalty=config.pretraining_penalty,
            augmentation=config.augmentation,
        )
        self.training_steps = context.training_steps(config.training_steps)
        network = self.build_module(config, {})
        load_teacher(network.teacher, self.size, config.teacher, context.weights_dir)
        network.to(context.device)
        self.losses = train_network(network, train, context, self.training_steps, options)
        take_fewer_multiplications(network)
        levels = config.quantile_a, config.quantile_b
        measure_normalisation(network, validation, context, config.map_normalisation, levels)
        self.implementation = {"training step": step}
        self.fitted = network

    @classmethod
    def restore(cls, config: EfficientAdConfig, state: Mapping[str, Tensor]) -> Self:
        """Rebuild it as the fit leaves it: on a CPU, convolutions of many channels are computed by :mod:`.winograd`.

        Raises:
            MethodError: The state is not that of a detector with these options.
        """
        detector = super().restore(config, state)
        take_fewer_multiplications(detector.module())
        return detector

    def fused_module(self) -> FusedEfficientAd:
        """The fitted networks with what teacher and student compute alike computed at once, see :mod:`.fused`.

        Raises:
            MethodError: The student is not shared.
            RuntimeError: The detector has not been fitted.
        """
        network = self.module()
        assert isinstance(network, EfficientAdNetwork)
        return FusedEfficientAd(network, grouped=network.mean.is_cuda)

    @classmethod
    def build_module(cls, config: EfficientAdConfig, state: Mapping[str, Tensor]) -> EfficientAdNetwork:
        """The untrained networks."""
        return EfficientAdNetwork(
            cls.size,
            padding=config.padding,
            map_border=config.map_border,
            dropout=config.dropout,
            shared_student=config.shared_student,
        )


class EfficientAdS(EfficientAd):
    """EfficientAD with the small patch description network of Table 5."""

    title = "EfficientAD-S"
    size = "S"
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "embedded": {"teacher": "embedded"},
        "demo": {"teacher": "embedded", "training_steps": 40},
        **table_4.PRESETS,
    }


class EfficientAdM(EfficientAd):
    """EfficientAD with the medium patch description network of Table 6."""

    title = "EfficientAD-M"
    size = "M"
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "embedded": {"teacher": "embedded"},
        "demo": {"teacher": "embedded", "training_steps": 30},
    }
