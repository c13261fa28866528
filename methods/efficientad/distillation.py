"""Distil a pretrained backbone into EfficientAD's teacher (Batzner et al., WACV 2024, Algorithm 3)."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.patch_features import PatchFeatures
from methods.detector import ImageSource
from methods.efficientad.pdn import TEACHER_CHANNELS, Size, normalise, patch_description_network, training_outputs
from methods.errors import MethodError

POOL = 2048
"""Photographs held in memory at a time, 2 GB; as many draws later others take their place."""
BACKBONE_SIZE = (512, 512)
TEACHER_SIZE = (256, 256)


@dataclass(frozen=True)
class DistillationConfig:
    """Options of Algorithm 3; the defaults are the paper's.

    Attributes:
        size: Teacher of EfficientAD-S or -M.
        backbone: Whose PatchCore features are distilled, a key of ``methods.common.backbones.BACKBONES``.
        backbone_weights: ``auto``, ``random`` or a path.
        steps: Optimiser steps.
        batch_size: Images per step.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        schedule: ``constant`` as in the paper, or ``cosine`` (to zero, after a warm-up of a twentieth of the steps).
        normalisation_images: Images drawn for the channel mean and standard deviation of the backbone's features.
        grayscale_probability: Of each image drawn.
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
    precision: Literal["fp32", "bf16"] = "fp32"
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
        checkpoint_every: Steps between checkpoints.
        progress: Called after each step with the step, the number of steps and the loss.

    Returns:
        ``out``.

    Raises:
        MethodError: There are no photographs, or the checkpoint is damaged or of a run with other options.
    """
    identity = backbone_identity(config.backbone, config.backbone_weights, weights_dir)
    backbone = Backbone(config.backbone, (8, 16), config.backbone_weights, weights_dir)
    pool = _Pool(photographs, config.seed)
    target = _Target(PatchFeatures(backbone, TEACHER_CHANNELS), pool, config, device)

    torch.manual_seed(config.seed)
    teacher = patch_description_network(config.size, TEACHER_CHANNELS, padding=True)
    teacher = nn.utils.convert_conv2d_weight_memory_format(teacher.to(device), torch.channels_last)
    optimizer = torch.optim.Adam(teacher.parameters(), config.learning_rate, weight_decay=config.weight_decay)

    checkpoint = Path(f"{out}.checkpoint")
    settings = {**asdict(config), "backbone_sha256": identity.sha256, "photographs": photographs.identity}
    losses: list[float] = []
    if checkpoint.exists():
        losses = _restore(checkpoint, settings, teacher, optimizer, target)
    else:
        target.measure()
    for step in range(len(losses), config.steps):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        pool.fill(step * config.batch_size // POOL)
        chosen = torch.randint(len(pool), (config.batch_size,), generator=generator)
        gray = torch.rand(config.batch_size, generator=generator) < config.grayscale_probability
        optimizer.param_groups[0]["lr"] = config.learning_rate_at(step)
        images = normalise(_grayscale(pool.small[chosen], gray).to(device)).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            features = training_outputs(teacher, images, padding=True)
        loss = (target(chosen, gray) - features.float()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        progress(step + 1, config.steps, losses[-1])
        if (step + 1) % checkpoint_every == 0:
            _save_checkpoint(checkpoint, settings, losses, teacher, optimizer, target)

    half = {key: value.half().contiguous().cpu() for key, value in teacher.state_dict().items()}
    save_file(half, out, metadata={"settings": json.dumps(settings)})
    out.with_suffix(".md").write_text(_model_card(settings, losses))
    checkpoint.unlink(missing_ok=True)
    return out


class _Pool:
    """Photographs at the sizes of teacher and backbone: all of a small folder, else a random choice at a time.

    Attributes:
        small: At ``TEACHER_SIZE``.
        large: The same at ``BACKBONE_SIZE``.
        number: Which choice.
        whole: Whether that is the whole folder.

    Raises:
        MethodError: There are no photographs.
    """

    def __init__(self, photographs: ImageSource, seed: int) -> None:
        self._photographs = photographs
        self._seed = seed
        self.small = photographs.images(TEACHER_SIZE, limit=POOL, seed=self._seed_of(0))
        self.whole = len(self.small) < POOL
        if len(self.small) == 0:
            raise MethodError(f"no photographs to distil on in {photographs.identity}")
        self.number = -1
        self.fill(0)

    def __len__(self) -> int:
        return len(self.small)

    def fill(self, number: int) -> None:
        """Make it choice ``number``."""
        if self.whole:
            number = 0
        if number == self.number:
            return
        self.number = number
        limit = None if self.whole else POOL
        self.small, self.large = (
            self._photographs.images(size, limit=limit, seed=self._seed_of(number))
            for size in (TEACHER_SIZE, BACKBONE_SIZE)
        )

    def _seed_of(self, number: int) -> int:
        return self._seed * 1_000_003 + number


class _Target:
    """The backbone's patch features at 512x512 pixels, normalised per channel (Algorithm 3, lines 2-12 and 22).

    Features of images drawn again come from a cache of bounded size: with a small folder the backbone runs once per
    image instead of once per draw.
    """

    def __init__(self, features: PatchFeatures, pool: _Pool, config: DistillationConfig, device: torch.device) -> None:
        self.features = features.to(device)
        self.pool = pool
        self.config = config
        self.device = device
        self.mean = torch.zeros(1, TEACHER_CHANNELS, 1, 1, device=device)
        self.std = torch.ones(1, TEACHER_CHANNELS, 1, 1, device=device)
        self._cache: dict[tuple[int, bool], Tensor] = {}
        self._cached_pool = pool.number

    def measure(self) -> None:
        """Set mean and standard deviation of each channel from randomly drawn images."""
        generator = torch.Generator().manual_seed(self.config.seed)
        total = torch.zeros(TEACHER_CHANNELS, dtype=torch.float64, device=self.device)
        squares = torch.zeros_like(total)
        positions = 0
        for chosen in self._draws(generator):
            gray = torch.rand(len(chosen), generator=generator) < self.config.grayscale_probability
            for start in range(0, len(chosen), 8):
                features = self._features(chosen[start : start + 8], gray[start : start + 8]).double()
                total += features.sum((0, 2, 3))
                squares += features.square().sum((0, 2, 3))
                positions += features[:, 0].numel()
        mean = total / positions
        std = (squares / positions - mean.square()).sqrt()
        self.mean = mean.float().view(1, -1, 1, 1)
        self.std = std.float().clamp_min(1e-6).view(1, -1, 1, 1)

    def _draws(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield positions of images to measure, each time after their pool has been filled."""
        count = self.config.normalisation_images
        if not self.pool.whole:
            for number in range(math.ceil(count / POOL)):
                self.pool.fill(number)
                yield torch.arange(min(POOL, count - number * POOL))
        elif count >= 2 * len(self.pool):
            # Drawing a small folder many times over tends to each image once: that limit is exact and cheaper.
            yield torch.arange(len(self.pool))
        else:
            yield torch.randint(len(self.pool), (count,), generator=generator)

    def __call__(self, chosen: Tensor, gray: Tensor) -> Tensor:
        """Normalised features (B, 384, 64, 64) of the chosen images, some of them turned gray."""
        return (self._features(chosen, gray).float() - self.mean) / self.std

    @torch.no_grad()
    def _features(self, chosen: Tensor, gray: Tensor) -> Tensor:
        if self._cached_pool != self.pool.number:
            self._cache, self._cached_pool = {}, self.pool.number
        keys = list(zip(chosen.tolist(), gray.tolist(), strict=True))
        new = sorted({key for key in keys if key not in self._cache})
        fresh: dict[tuple[int, bool], Tensor] = {}
        if new:
            indices, grays = (torch.tensor(part) for part in zip(*new, strict=True))
            batch = _grayscale(self.pool.large[indices], grays).to(self.device)
            fresh = dict(zip(new, self.features(batch).half().cpu(), strict=True))
        batch = torch.stack([fresh[key] if key in fresh else self._cache[key] for key in keys])
        room = int(self.config.cache_gib * 2**30) // batch[0].nbytes - len(self._cache)
        self._cache |= dict(list(fresh.items())[: max(0, room)])
        return batch.to(self.device)


def _grayscale(images: Tensor, chosen: Tensor) -> Tensor:
    """Replace the chosen uint8 RGB images by their luma (ITU-R 601, as PIL and torchvision convert)."""
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    images = images.clone()
    images[chosen] = rgb_to_grayscale(images[chosen], num_output_channels=3)
    return images


def _save_checkpoint(
    path: Path,
    settings: dict[str, object],
    losses: list[float],
    teacher: nn.Module,
    optimizer: torch.optim.Optimizer,
    target: _Target,
) -> None:
    state = {f"teacher.{key}": value for key, value in teacher.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        state |= {f"adam.{index}.{key}": value for key, value in moments.items()}
    state |= {"mean": target.mean, "std": target.std, "losses": torch.tensor(losses)}
    partial = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in state.items()}, partial, metadata={"settings": json.dumps(settings)})
    partial.replace(path)


def _restore(
    path: Path,
    settings: dict[str, object],
    teacher: nn.Module,
    optimizer: torch.optim.Optimizer,
    target: _Target,
) -> list[float]:
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
