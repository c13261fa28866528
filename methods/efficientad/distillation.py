"""Distil a pretrained backbone into EfficientAD's teacher (Batzner et al., WACV 2024, Algorithm 3)."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.normalisation import Normalise
from methods.common.precision import check_precision
from methods.detector import ImageSource
from methods.efficientad.distillation_target import (
    POOL,
    TEACHER_SIZE,
    DistillationTarget,
    PhotographPool,
    grayscale,
    squares,
)
from methods.efficientad.fast_step import training_outputs
from methods.efficientad.pdn import RECEPTIVE_FIELD, STRIDE, TEACHER_CHANNELS, Size, patch_description_network
from methods.efficientad.step import TrainingPrecision, autocast, choose_step
from methods.errors import MethodError

MIN_CROP = math.ceil(RECEPTIVE_FIELD / STRIDE) * STRIDE
"""Side in pixels of the least square, a multiple of the stride."""


@dataclass(frozen=True)
class DistillationConfig:
    """Options of Algorithm 3; the defaults are the paper's.

    Attributes:
        size: Teacher of EfficientAD-S or -M.
        backbone: Whose PatchCore features are distilled, a key of ``methods.weights.catalogue.BACKBONES``.
        backbone_weights: ``auto``, ``random`` or a path.
        steps: Optimiser steps.
        batch_size: Images per step.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        schedule: ``constant`` as in the paper, or ``cosine`` (to zero, after a warm-up of a twentieth of the steps).
        normalisation_images: Images drawn for the channel mean and standard deviation of the backbone's features.
        grayscale_probability: Of each image drawn.
        crop: Side in pixels of the random square of each image that a step trains on, a multiple of 4; the whole image
            if not given. A square goes through the network without padding and is compared with the part of the target
            that it determines: fewer positions of an image a step, so a fraction of its cost, and of more images.
        precision: ``bf16`` runs the teacher under autocast.
        cache_gib: Memory for backbone features of images that are drawn again.
        seed: Seeds every random choice.
    """

    size: Size = "S"
    backbone: str = "wide_resnet101_2"
    backbone_weights: str = "auto"
    steps: Annotated[int, Field(gt=0)] = 60_000
    batch_size: Annotated[int, Field(gt=0)] = 16
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    normalisation_images: Annotated[int, Field(gt=0)] = 10_000
    grayscale_probability: Annotated[float, Field(ge=0, le=1)] = 0.1
    crop: Annotated[int, Field(ge=MIN_CROP, le=TEACHER_SIZE[0], multiple_of=STRIDE)] | None = None
    precision: TrainingPrecision = "fp32"
    cache_gib: Annotated[float, Field(ge=0)] = 7.0
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of optimiser step ``step``, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (self.steps - warm_up)))


def distill(
    config: DistillationConfig,
    photographs: ImageSource,
    out: Path,
    *,
    weights_dir: Path,
    device: torch.device,
    force_precision: bool = False,
    checkpoint_every: int = 50,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Path:
    """Run Algorithm 3 and write the teacher; continues from the checkpoint that an interrupted run left.

    Args:
        config: Options.
        photographs: Images to distil on.
        out: The teacher's file, float16 safetensors; ``<out>.checkpoint`` beside it until the run is complete and a
            model card, ``<out stem>.md``, afterwards.
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
    distillation = Distillation(config, photographs, weights_dir, device)
    checkpoint = Path(f"{out}.checkpoint")
    settings = {**asdict(config), "backbone_sha256": identity.sha256, "photographs": photographs.identity}
    losses: list[float] = []
    if checkpoint.exists():
        losses = _restore(checkpoint, settings, distillation)
    else:
        distillation.target.measure(config.normalisation_images, config.grayscale_probability, config.seed)
    for step in range(len(losses), config.steps):
        losses.append(distillation.step(step))
        progress(step + 1, config.steps, losses[-1])
        if (step + 1) % checkpoint_every == 0:
            _save_checkpoint(checkpoint, settings, losses, distillation)

    half = {key: value.half().contiguous().cpu() for key, value in distillation.teacher.state_dict().items()}
    save_file(half, out, metadata={"settings": json.dumps(settings)})
    out.with_suffix(".md").write_text(_model_card(settings, losses))
    checkpoint.unlink(missing_ok=True)
    return out


class Distillation:
    """Distillation of a teacher, one iteration at a time (Algorithm 3, lines 13-27).

    Seeds the global generator for the teacher's initial weights.

    Args:
        config: Options.
        photographs: Images to distil on.
        weights_dir: Where downloaded backbones are kept.
        device: Where to train.

    Attributes:
        teacher: The network in training.
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
        self._pool = PhotographPool(photographs, config.seed)
        self._normalise = Normalise().to(device)
        self._fast = choose_step("auto", device) == "fast"
        cache_bytes = int(config.cache_gib * 2**30)
        self.target = DistillationTarget(backbone, self._pool, device, cache_bytes)

        torch.manual_seed(config.seed)
        teacher = patch_description_network(config.size, TEACHER_CHANNELS, padding=config.crop is None)
        self.teacher = nn.utils.convert_conv2d_weight_memory_format(teacher.to(device), torch.channels_last)
        self.optimizer = torch.optim.Adam(
            self.teacher.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )

    def step(self, number: int) -> float:
        """Run iteration ``number``, counted from 0, and return its loss; it depends on none of the draws before."""
        config, pool = self._config, self._pool
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
        pool.fill(number * config.batch_size // POOL)
        chosen = torch.randint(len(pool), (config.batch_size,), generator=generator)
        gray = torch.rand(config.batch_size, generator=generator) < config.grayscale_probability
        self.optimizer.param_groups[0]["lr"] = config.learning_rate_at(number)
        images, target = grayscale(pool.small[chosen], gray).to(self._device), self.target(chosen, gray)
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
                return training_outputs(self.teacher, images, padding=self._config.crop is None).float()
            outputs: Tensor = self.teacher(images)
            return outputs.float()


def _save_checkpoint(path: Path, settings: dict[str, object], losses: list[float], distillation: Distillation) -> None:
    state = {f"teacher.{key}": value for key, value in distillation.teacher.state_dict().items()}
    for index, moments in distillation.optimizer.state_dict()["state"].items():
        state |= {f"adam.{index}.{key}": value for key, value in moments.items()}
    state |= {"mean": distillation.target.mean, "std": distillation.target.std, "losses": torch.tensor(losses)}
    partial = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in state.items()}, partial, metadata={"settings": json.dumps(settings)})
    partial.replace(path)


def _restore(path: Path, settings: dict[str, object], distillation: Distillation) -> list[float]:
    try:
        with safe_open(path, "pt") as file:
            saved = json.loads(file.metadata()["settings"])
    except SafetensorError as error:
        raise MethodError(f"{path} is not a readable checkpoint ({error}); delete it to start anew") from error
    if saved != settings:
        changed = [f"{key}: {saved.get(key)} -> {settings[key]}" for key in settings if saved.get(key) != settings[key]]
        raise MethodError(
            f"{path} belongs to a run with other options ({'; '.join(changed)}); delete it to start anew, or give "
            "the options it was started with"
        )
    state = load_file(path)
    teacher, optimizer, target = distillation.teacher, distillation.optimizer, distillation.target
    teacher.load_state_dict({k.removeprefix("teacher."): v for k, v in state.items() if k.startswith("teacher.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith("adam."):
            _, index, name = key.split(".", 2)
            moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    target.mean, target.std = state["mean"].to(target.device), state["std"].to(target.device)
    return [float(loss) for loss in state["losses"]]


def _model_card(settings: dict[str, object], losses: list[float]) -> str:
    window = max(1, len(losses) // 20)
    rows = [
        f"| {start + 1}-{min(start + window, len(losses))} | {sum(part) / len(part):.4f} |"
        for start in range(0, len(losses), window)
        if (part := losses[start : start + window])
    ]
    options = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in settings.items())
    return (
        f"# EfficientAD-{settings['size']} teacher\n\n"
        "Patch description network distilled with Algorithm 3 of Batzner et al. (WACV 2024) by `bench distill`.\n"
        "float16 weights; input: ImageNet-normalised RGB, 256x256 pixels; output: 384 features per position.\n\n"
        f"## Options\n\n{options}\n\n"
        f"## Command\n\n    {_command(settings)}\n\n"
        "## Loss\n\nMean squared error against the channel-normalised target, averaged over the steps named.\n\n"
        "| steps | loss |\n|---|---|\n" + "\n".join(rows) + "\n"
    )


def _command(settings: dict[str, object]) -> str:
    changed = [
        f"--{field.name.replace('_', '-')} {settings[field.name]}"
        for field in fields(DistillationConfig)
        if settings[field.name] != field.default
    ]
    return " ".join(["bench distill --photographs FOLDER --out TEACHER.safetensors", *changed])
