"""``bench distill``: a teacher for EfficientAD from a folder of photographs."""

from dataclasses import dataclass, field, fields

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
from bench.options import Device, Folder, WeightsDir
from methods.efficientad.distillation import DistillationConfig
from methods.efficientad.distillation import distill as distill_teacher
from methods.weights.files import default_weights_directory

_LOG_LINES = 50
"""Lines of progress where there is no terminal."""


@dataclass(frozen=True, kw_only=True)
class DistillOptions(DistillationConfig):
    """Everything that ``bench distill`` takes: the options of Algorithm 3, and from where to where.

    Attributes:
        photographs: Folder of images to distil on.
        out: The teacher's file, .safetensors.
        device: auto, cpu, cuda or cuda:N.
        weights_dir: Where downloaded weights are kept.
        force: Train in a precision that this CPU only emulates, which takes ages.
    """

    photographs: Folder
    out: Folder
    device: Device = "auto"
    weights_dir: WeightsDir = field(default_factory=default_weights_directory)
    force: bool = False

    def config(self) -> DistillationConfig:
        """The options of Algorithm 3."""
        return DistillationConfig(**{option.name: getattr(self, option.name) for option in fields(DistillationConfig)})


def distill(options: DistillOptions) -> int:
    """Make a teacher for EfficientAD from photographs (Algorithm 3); an interrupted run continues."""
    keep_freed_memory()
    out, terminal = options.out, console()
    if not out.absolute().parent.is_dir():
        raise UsageError(f"the folder of --out {out} does not exist; make it first")
    if out.is_dir() or out.suffix != ".safetensors":
        raise UsageError(f"--out {out} must be the name of a .safetensors file")
    device = torch.device(choose_slots(options.device, 1)[0].device)
    source = PhotographFolder(options.photographs, Cache(default_cache_directory()))
    terminal.print(f"distilling on {escape(source.identity)}, {device}", highlight=False, soft_wrap=True)
    bar = _progress_bar(terminal)
    try:
        with bar:
            task = bar.add_task("distill", total=options.steps, loss="–")

            def show(step: int, steps: int, loss: float) -> None:
                bar.update(task, completed=step, loss=f"{loss:.4f}")
                if not terminal.is_terminal and (step % max(1, steps // _LOG_LINES) == 0 or step == steps):
                    terminal.print(f"step {step} of {steps}, loss {loss:.4f}", highlight=False)

            distill_teacher(
                options.config(),
                source,
                out,
                weights_dir=options.weights_dir,
                device=device,
                force_precision=options.force,
                progress=show,
            )
    except KeyboardInterrupt:
        terminal.print("[bold]interrupted:[/] the same command continues from the last checkpoint", highlight=False)
        return INTERRUPTED
    terminal.print(
        f"teacher: {escape(str(out))}, model card: {escape(str(out.with_suffix('.md')))}\n"
        f"Use it with --set efficientad_{options.size.lower()}.teacher={escape(str(out))}",
        highlight=False,
        soft_wrap=True,
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
