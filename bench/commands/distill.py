"""``bench distill``: a teacher for EfficientAD from a folder of photographs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.photographs import PhotographFolder
from bench.errors import UsageError
from bench.machine.devices import choose_slots
from bench.machine.memory import keep_freed_memory
from bench.plan import weights_folder
from methods.efficientad.distillation import DistillationConfig, distill

INTERRUPTED = 130
_LOG_LINES = 50
"""Lines of progress where there is no terminal."""


def distill_teacher(
    photographs: Path,
    out: Path,
    options: Mapping[str, object],
    device: str,
    weights_dir: Path | None,
    console: Console,
) -> int:
    """Distil with progress on the console; return the exit code.

    Raises:
        UsageError: An option has a value it does not take, or the device or the output folder does not exist.
        MethodError: The backbone's weights are missing, or a checkpoint beside ``out`` has other options.
    """
    keep_freed_memory()
    config = _config(options)
    if not out.absolute().parent.is_dir():
        raise UsageError(f"the folder of --out {out} does not exist; make it first")
    if out.is_dir() or out.suffix != ".safetensors":
        raise UsageError(f"--out {out} must be the name of a .safetensors file")
    place = torch.device(choose_slots(device, 1)[0].device)
    source = PhotographFolder(photographs, Cache(default_cache_directory()))
    console.print(f"distilling on {escape(source.identity)}, {place}", highlight=False, soft_wrap=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(24 if console.width >= 100 else 10),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    try:
        with bar:
            task = bar.add_task("distill", total=config.steps, loss="–")

            def show(step: int, steps: int, loss: float) -> None:
                bar.update(task, completed=step, loss=f"{loss:.4f}")
                if not console.is_terminal and (step % max(1, steps // _LOG_LINES) == 0 or step == steps):
                    console.print(f"step {step} of {steps}, loss {loss:.4f}", highlight=False)

            distill(config, source, out, weights_dir=weights_folder(weights_dir), device=place, progress=show)
    except KeyboardInterrupt:
        console.print("[bold]interrupted:[/] the same command continues from the last checkpoint", highlight=False)
        return INTERRUPTED
    card = out.with_suffix(".md")
    console.print(
        f"teacher: {escape(str(out))}, model card: {escape(str(card))}\n"
        f"Use it with --set efficientad_{config.size.lower()}.teacher={escape(str(out))}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _config(options: Mapping[str, Any]) -> DistillationConfig:
    try:
        return TypeAdapter(DistillationConfig).validate_python(dict(options))
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        raise UsageError(
            f"--{name.replace('_', '-')} does not take {options.get(name)!r}: {problem['msg']}\n"
            "  bench distill --help says what it takes."
        ) from error
