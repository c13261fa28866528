"""Training of a network on everyday photographs, as ``bench distill`` runs it: resumable, and written with a card."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.common.precision import TrainingPrecision
from methods.detector import ImageSource
from methods.errors import MethodError

POOL = 2048
"""Photographs held in memory at a time, at all sizes; as many draws later others take their place."""

EARLIER_STEPS = "earlier_steps"
"""Setting of a run that was continued with another number of steps: how many until then."""

StepProgress = Callable[[int, int, float], None]
"""Called after each step with the step, counted from 1, the number of steps and the loss."""


@dataclass(frozen=True, kw_only=True)
class PhotographTrainingConfig:
    """Options that all trainings on photographs have; each sets its own defaults.

    Attributes:
        steps: Optimiser steps.
        batch_size: Images per step.
        learning_rate: Of Adam.
        schedule: ``constant``, or ``cosine`` (to zero, after a warm-up of a twentieth of the steps).
        precision: ``bf16`` runs the network in training under autocast.
        seed: Seeds every random choice.
    """

    steps: Annotated[int, Field(gt=0)]
    batch_size: Annotated[int, Field(gt=0)] = 16
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    precision: TrainingPrecision = "fp32"
    seed: int = 0

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of optimiser step ``step``, counted from 0."""
        if self.schedule == "constant":
            return self.learning_rate
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (self.steps - warm_up)))

    def generator_of(self, step: int) -> torch.Generator:
        """Random numbers of optimiser step ``step``, which depend on none of the draws before."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + step)


class PhotographPool:
    """Photographs to draw from: all of a small folder, else a random choice at a time.

    Attributes:
        images: The same photographs at each of the sizes.
        number: Which choice.
        whole: Whether that is the whole folder.

    Args:
        photographs: The folder.
        sizes: Heights and widths that the photographs are resized to.
        seed: Of the choices.

    Raises:
        MethodError: There are no photographs.
    """

    def __init__(self, photographs: ImageSource, sizes: Sequence[tuple[int, int]], seed: int) -> None:
        self._photographs = photographs
        self._sizes = sizes
        self._seed = seed
        count = len(photographs.images(sizes[0], limit=POOL, seed=self._seed_of(0)))
        if count == 0:
            raise MethodError(f"no photographs to train on in {photographs.identity}")
        self.whole = count < POOL
        self.number = -1
        self.fill(0)

    def __len__(self) -> int:
        return len(self.images[0])

    def fill(self, number: int) -> None:
        """Make it choice ``number``."""
        if self.whole:
            number = 0
        if number == self.number:
            return
        self.number = number
        limit = None if self.whole else POOL
        self.images = tuple(
            self._photographs.images(size, limit=limit, seed=self._seed_of(number)) for size in self._sizes
        )

    def draw(self, step: int, count: int, generator: torch.Generator) -> Tensor:
        """Positions (count,) of the images of optimiser step ``step``, of the choice that is its turn."""
        self.fill(step * count // POOL)
        return torch.randint(len(self), (count,), generator=generator)

    def _seed_of(self, number: int) -> int:
        return self._seed * 1_000_003 + number


class PhotographTraining(Protocol):
    """A training on photographs, one step at a time."""

    @property
    def network(self) -> nn.Module:
        """The network in training, whose state is what is written."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Adam, of one parameter group, whose learning rate is set before each step."""

    def measure(self) -> None:
        """Measure whatever must be known before the first step; not called where a checkpoint holds it."""

    def state(self) -> Mapping[str, Tensor]:
        """What the next step depends on, besides the network and the optimiser; a checkpoint is copied into it."""

    def step(self, number: int) -> float:
        """Run step ``number``, counted from 0, and return its loss; it depends on none of the draws before."""


@dataclass(frozen=True)
class Card:
    """What a model card says besides options, command and loss.

    Attributes:
        title: What the network is.
        about: How it is made and what goes in and comes out, Markdown.
        loss: What the loss is, a sentence.
        command: That makes it, such as ``bench distill efficientad``.
    """

    title: str
    about: str
    loss: str
    command: str


def train_on_photographs(
    training: PhotographTraining,
    config: PhotographTrainingConfig,
    facts: Mapping[str, object],
    out: Path,
    card: Card,
    *,
    checkpoint_every: int = 50,
    progress: StepProgress = lambda step, steps, loss: None,
) -> Path:
    """Train and write the network; continue from the checkpoint that an interrupted run left.

    A run may be continued with another number of steps: from there on the schedule is theirs, and the card says so.

    Args:
        training: The training, at its start.
        config: Its options.
        facts: What else the result depends on: ``photographs``, and such as ``backbone_sha256``.
        out: The network's file, float16 safetensors; ``<out>.checkpoint`` beside it until the run is complete and a
            model card, ``<out stem>.md``, afterwards.
        card: What the model card says.
        checkpoint_every: Steps between checkpoints.
        progress: Called after each step.

    Returns:
        ``out``.

    Raises:
        MethodError: The checkpoint is damaged or of a run with other options, or the loss is not finite.
    """
    checkpoint = Path(f"{out}.checkpoint")
    settings = json.loads(json.dumps({**asdict(config), **facts}))
    losses: list[float] = []
    if checkpoint.exists():
        losses, settings = _restore(checkpoint, settings, training)
    else:
        training.measure()
    for step in range(len(losses), config.steps):
        training.optimizer.param_groups[0]["lr"] = config.learning_rate_at(step)
        losses.append(training.step(step))
        if not math.isfinite(losses[-1]):
            raise MethodError(
                f"the loss of step {step + 1} of {config.steps} is {losses[-1]}\n"
                f"  Lower --learning-rate, which is {config.learning_rate:g}, or train in --precision fp32."
            )
        progress(step + 1, config.steps, losses[-1])
        if (step + 1) % checkpoint_every == 0:
            _save_checkpoint(checkpoint, settings, losses, training)

    half = {key: value.half().contiguous().cpu() for key, value in training.network.state_dict().items()}
    save_file(half, out, metadata={"settings": json.dumps(settings)})
    out.with_suffix(".md").write_text(card_text(card, config, settings, losses))
    checkpoint.unlink(missing_ok=True)
    return out


def card_text(
    card: Card, config: PhotographTrainingConfig, settings: Mapping[str, object], losses: Sequence[float]
) -> str:
    """The model card: options, command and loss curve, Markdown."""
    window = max(1, len(losses) // 20)
    rows = [
        f"| {start + 1}-{min(start + window, len(losses))} | {sum(part) / len(part):.4f} |"
        for start in range(0, len(losses), window)
        if (part := losses[start : start + window])
    ]
    options = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in settings.items())
    changed = [
        f"--{option.name.replace('_', '-')} {getattr(config, option.name)}"
        for option in fields(config)
        if getattr(config, option.name) != option.default
    ]
    command = " ".join([card.command, "--photographs FOLDER --out FILE.safetensors", *changed])
    return (
        f"# {card.title}\n\n{card.about}\n\n"
        f"## Options\n\n{options}\n\n"
        f"## Command\n\n    {command}\n\n"
        f"## Loss\n\n{card.loss} Averaged over the steps named.\n\n"
        "| steps | loss |\n|---|---|\n" + "\n".join(rows) + "\n"
    )


def provenance(path: Path) -> str:
    """What a file that :func:`train_on_photographs` wrote says of its making; of any other, its name."""
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})["settings"])
    except (SafetensorError, KeyError):
        return path.name
    origin = f"distilled from {settings['backbone']}" if "backbone" in settings else "trained"
    start = "" if settings.get("start", "random") == "random" else ", from EfficientAD-S's teacher on"
    return f"{origin}, {settings['steps']} steps{start}, {settings['photographs']}"


def _save_checkpoint(
    path: Path, settings: Mapping[str, object], losses: Sequence[float], training: PhotographTraining
) -> None:
    state = {f"network.{key}": value for key, value in training.network.state_dict().items()}
    for index, moments in training.optimizer.state_dict()["state"].items():
        state |= {f"adam.{index}.{key}": value for key, value in moments.items()}
    state |= {f"state.{key}": value for key, value in training.state().items()}
    state["losses"] = torch.tensor(losses)
    partial = path.with_suffix(".part")
    save_file({k: v.contiguous() for k, v in state.items()}, partial, metadata={"settings": json.dumps(settings)})
    partial.replace(path)


def _restore(
    path: Path, settings: Mapping[str, object], training: PhotographTraining
) -> tuple[list[float], dict[str, object]]:
    """Continue from a checkpoint: its losses, and the settings with what it says of other numbers of steps."""
    try:
        with safe_open(path, "pt") as file:
            saved = json.loads(file.metadata()["settings"])
    except SafetensorError as error:
        raise MethodError(f"{path} is not a readable checkpoint ({error}); delete it to start anew") from error
    other = [key for key in settings if key != "steps" and saved.get(key) != settings[key]]
    if other:
        changed = [f"{key}: {saved.get(key)} -> {settings[key]}" for key in other]
        raise MethodError(
            f"{path} belongs to a run with other options ({'; '.join(changed)}); delete it to start anew, or give "
            "the options it was started with"
        )
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in load_file(path).items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value
    training.network.load_state_dict(parts["network"])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in parts["adam"].items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    training.optimizer.load_state_dict({**training.optimizer.state_dict(), "state": moments})
    for key, value in training.state().items():
        value.copy_(parts["state"][key])
    losses = [float(loss) for loss in parts["losses"][""]]
    earlier = [saved[EARLIER_STEPS]] if EARLIER_STEPS in saved else []
    if saved["steps"] != settings["steps"]:
        earlier.append(f"{saved['steps']} until step {len(losses)}")
    return losses, {**settings, **({EARLIER_STEPS: ", ".join(earlier)} if earlier else {})}
