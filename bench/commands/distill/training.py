"""What the commands of ``bench distill`` share: where from, where to, and progress on the terminal."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, TypeVar

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.commands.flags import INTERRUPTED, console
from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.photographs import PhotographFolder
from bench.errors import UsageError
from bench.machine.devices import choose_slots
from bench.machine.memory import keep_freed_memory
from bench.option_types import Device, Folder, WeightsDir
from methods.weights.files import default_weights_directory

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Part = TypeVar("Part", bound="DataclassInstance")

_LOG_LINES = 50
"""Lines of progress where there is no terminal."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every command of ``bench distill`` takes besides the options of its training.

    Attributes:
        photographs: Folder of images to train on.
        out: The network's file, .safetensors.
        device: auto, cpu, cuda or cuda:N.
        weights_dir: Where downloaded weights are kept.
        force: Train in a precision that this CPU only emulates, which takes ages.
    """

    photographs: Folder
    out: Folder
    device: Device = "auto"
    weights_dir: WeightsDir = field(default_factory=default_weights_directory)
    force: bool = False


def part_of(options: object, kind: type[Part]) -> Part:
    """Those of a command's options that are fields of another dataclass, as one of that."""
    return kind(**{option.name: getattr(options, option.name) for option in fields(kind)})


def run_training(options: TrainingOptions, train: Callable[..., object], use: str) -> int:
    """Train on the folder of photographs and say how far it is, then what came of it.

    Args:
        options: Where from and where to.
        train: Trains and writes a file and its model card; is given the photographs, the file and, by name, device,
            whether the precision is forced, and whom to tell how far it is.
        use: What the file is good for, a sentence.

    Returns:
        The exit code.

    Raises:
        UsageError: The file cannot be written where it should be.
    """
    keep_freed_memory()
    out, terminal = options.out, console()
    if not out.absolute().parent.is_dir():
        raise UsageError(f"the folder of --out {out} does not exist; make it first")
    if out.is_dir() or out.suffix != ".safetensors":
        raise UsageError(f"--out {out} must be the name of a .safetensors file")
    device = torch.device(choose_slots(options.device, 1)[0].device)
    source = PhotographFolder(options.photographs, Cache(default_cache_directory()))
    terminal.print(f"training on {escape(source.identity)}, {device}", highlight=False, soft_wrap=True)
    bar = _progress_bar(terminal)
    try:
        with bar:
            task = bar.add_task("train", total=None, loss="–")

            def show(step: int, steps: int, loss: float) -> None:
                bar.update(task, completed=step, total=steps, loss=f"{loss:.4f}")
                if not terminal.is_terminal and (step % max(1, steps // _LOG_LINES) == 0 or step == steps):
                    terminal.print(f"step {step} of {steps}, loss {loss:.4f}", highlight=False)

            train(source, out, device=device, force_precision=options.force, progress=show)
    except KeyboardInterrupt:
        terminal.print("[bold]interrupted:[/] the same command continues from the last checkpoint", highlight=False)
        return INTERRUPTED
    card = out.with_suffix(".md")
    terminal.print(
        f"weights: {escape(str(out))}, model card: {escape(str(card))}\n{escape(use)}", highlight=False, soft_wrap=True
    )
    return 0


def _progress_bar(terminal: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(24 if terminal.width >= 100 else 10),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
        console=terminal,
        disable=not terminal.is_terminal,
    )
