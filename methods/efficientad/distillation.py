"""Distil a pretrained backbone into EfficientAD's teacher (Batzner et al., WACV 2024, Algorithm 3)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.normalisation import Normalise
from methods.common.photograph_training import (
    Card,
    PhotographTrainingConfig,
    StepProgress,
    train_on_photographs,
)
from methods.common.precision import autocast, check_precision
from methods.detector import ImageSource
from methods.efficientad.distillation_target import (
    TEACHER_SIZE,
    DistillationTarget,
    grayscale,
    photograph_pool,
    squares,
)
from methods.efficientad.fast_step import training_outputs
from methods.efficientad.pdn import RECEPTIVE_FIELD, STRIDE, TEACHER_CHANNELS, Size, patch_description_network
from methods.efficientad.step import choose_step
from methods.efficientad.teachers import load_teacher, teacher_identity
from methods.efficientad.widening import widen
from methods.errors import MethodError

MIN_CROP = math.ceil(RECEPTIVE_FIELD / STRIDE) * STRIDE
"""Side in pixels of the least square, a multiple of the stride."""


@dataclass(frozen=True, kw_only=True)
class DistillationConfig(PhotographTrainingConfig):
    """Options of Algorithm 3; the defaults are the paper's.

    Attributes:
        size: Teacher of EfficientAD-S or -M.
        backbone: Whose PatchCore features are distilled, a key of ``methods.weights.catalogue.BACKBONES``; those of
            Table 8 are ``wide_resnet101_2``, ``resnext101_32x8d`` and ``densenet201``.
        backbone_weights: ``auto``, ``random`` or a path.
        start: ``random``, or for size M the teacher of EfficientAD-S that it is at first: ``embedded``, ``auto`` or a
            path. The larger network then learns what the smaller one could not.
        weight_decay: Of Adam.
        normalisation_images: Images drawn for the channel mean and standard deviation of the backbone's features.
        grayscale_probability: Of each image drawn.
        crop: Side in pixels of the random square of each image that a step trains on, a multiple of 4; the whole image
            if not given. A square goes through the network without padding and is compared with the part of the target
            that it determines: fewer positions of an image a step, so a fraction of its cost, and of more images.
        cache_gib: Memory for backbone features of images that are drawn again.
    """

    size: Size = "S"
    backbone: str = "wide_resnet101_2"
    backbone_weights: str = "auto"
    start: str = "random"
    steps: Annotated[int, Field(gt=0)] = 60_000
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    normalisation_images: Annotated[int, Field(gt=0)] = 10_000
    grayscale_probability: Annotated[float, Field(ge=0, le=1)] = 0.1
    crop: Annotated[int, Field(ge=MIN_CROP, le=TEACHER_SIZE[0], multiple_of=STRIDE)] | None = None
    cache_gib: Annotated[float, Field(ge=0)] = 7.0

    def __post_init__(self) -> None:
        if self.start != "random" and self.size != "M":
            raise MethodError(
                f"start={self.start} is for size M, which starts as a teacher of size S, and the size is {self.size}\n"
                "  Leave it out, or give --size M."
            )


def distill(
    config: DistillationConfig,
    photographs: ImageSource,
    out: Path,
    *,
    weights_dir: Path,
    device: torch.device,
    force_precision: bool = False,
    checkpoint_every: int = 50,
    progress: StepProgress = lambda step, steps, loss: None,
) -> Path:
    """Run Algorithm 3 and write the teacher; continues from the checkpoint that an interrupted run left.

    Args:
        config: Options.
        photographs: Images to distil on.
        out: The teacher's file; see :func:`methods.common.photograph_training.train_on_photographs`.
        weights_dir: Where downloaded backbones are kept.
        device: Where to train.
        force_precision: Train in a precision for which the CPU has no instructions, though that takes ages.
        checkpoint_every: Steps between checkpoints.
        progress: Called after each step with the step, the number of steps and the loss.

    Returns:
        ``out``.

    Raises:
        MethodError: There are no photographs, the CPU only emulates the precision, or the checkpoint is damaged or of
            a run with other options.
    """
    check_precision(config.precision, device, forced=force_precision)
    identity = backbone_identity(config.backbone, config.backbone_weights, weights_dir)
    training = Distillation(config, photographs, weights_dir, device)
    start = (
        {} if config.start == "random" else {"start_sha256": teacher_identity("S", config.start, weights_dir).sha256}
    )
    facts = {"backbone_sha256": identity.sha256, **start, "photographs": photographs.identity}
    card = Card(
        title=f"EfficientAD-{config.size} teacher",
        about="Patch description network distilled with Algorithm 3 of Batzner et al. (WACV 2024).\n"
        f"float16 weights; input: ImageNet-normalised RGB, {TEACHER_SIZE[0]}x{TEACHER_SIZE[1]} pixels; "
        f"output: {TEACHER_CHANNELS} features per position.",
        loss="Mean squared error against the channel-normalised target.",
        command="bench distill efficientad",
    )
    return train_on_photographs(
        training, config, facts, out, card, checkpoint_every=checkpoint_every, progress=progress
    )


class Distillation:
    """Distillation of a teacher, one iteration at a time (Algorithm 3, lines 13-27).

    Seeds the global generator for the teacher's initial weights.

    Args:
        config: Options.
        photographs: Images to distil on.
        weights_dir: Where downloaded backbones are kept.
        device: Where to train.

    Attributes:
        network: The teacher in training.
        optimizer: Its optimiser.
        target: What it imitates.

    Raises:
        MethodError: There are no photographs.
    """

    def __init__(
        self, config: DistillationConfig, photographs: ImageSource, weights_dir: Path, device: torch.device
    ) -> None:
        backbone = Backbone(config.backbone, (8, 16), config.backbone_weights, weights_dir)
        self._config = config
        self._device = device
        self._pool = photograph_pool(photographs, config.seed)
        self._normalise = Normalise().to(device)
        self._fast = choose_step("auto", device) == "fast"
        cache_bytes = int(config.cache_gib * 2**30)
        self.target = DistillationTarget(backbone, self._pool, device, cache_bytes)

        torch.manual_seed(config.seed)
        teacher = patch_description_network(config.size, TEACHER_CHANNELS, padding=config.crop is None)
        if config.start != "random":
            small = patch_description_network("S", TEACHER_CHANNELS, padding=False)
            load_teacher(small, "S", config.start, weights_dir)
            widen(small, teacher)
        self.network: nn.Sequential = nn.utils.convert_conv2d_weight_memory_format(
            teacher.to(device), torch.channels_last
        )
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )

    def measure(self) -> None:
        """Measure the channel mean and standard deviation of the target (lines 2-12)."""
        config = self._config
        self.target.measure(config.normalisation_images, config.grayscale_probability, config.seed)

    def state(self) -> Mapping[str, Tensor]:
        """What has been measured."""
        return {"mean": self.target.mean, "std": self.target.std}

    def step(self, number: int) -> float:
        """Run iteration ``number``, counted from 0, and return its loss; it depends on none of the draws before."""
        config = self._config
        generator = config.generator_of(number)
        chosen = self._pool.draw(number, config.batch_size, generator)
        gray = torch.rand(config.batch_size, generator=generator) < config.grayscale_probability
        images, target = grayscale(self._pool.images[0][chosen], gray).to(self._device), self.target(chosen, gray)
        if config.crop is not None:
            images, target = squares(images, target, config.crop, generator)
        loss = (target - self._outputs(self._normalise(images))).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _outputs(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self._device, self._config.precision):
            if self._fast:
                return training_outputs(self.network, images, padding=self._config.crop is None).float()
            outputs: Tensor = self.network(images)
            return outputs.float()
