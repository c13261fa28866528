"""What each part of a detector takes: by marks around its parts, in passes of their own, as marks take time too."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bench.timing.statistics import percentile
from methods.common.nearest import NearestSearch
from results.timing_record import Stage, Stages

TO_DEVICE, PREPROCESSING, BETWEEN, POST, TO_HOST = (
    "transfer to device",
    "preprocessing",
    "between stages",
    "post",
    "transfer back",
)
SEARCH = "search"
MOST_PASSES = 1000
FEWEST_PASSES = 3
_WHOLE = "module"

Call = tuple[str, Any, Any]
"""Name of a part, and the marks before and after it."""


class Marks(Protocol):
    """Marks moments, in the order in which work is done."""

    def mark(self) -> Any:
        """This moment."""

    def wait(self) -> None:
        """Return when all marks so far have been passed."""

    def between(self, start: Any, end: Any) -> float:
        """Milliseconds between two moments that have passed."""


class HostMarks:
    """Moments of the host's clock.

    Args:
        now: Nanoseconds, monotonic.
    """

    def __init__(self, now: Callable[[], int] = time.perf_counter_ns) -> None:
        self._now = now

    def mark(self) -> int:
        """This moment."""
        return self._now()

    def wait(self) -> None:
        """The host's moments have passed."""

    def between(self, start: int, end: int) -> float:
        """Milliseconds between two moments."""
        return (end - start) / 1e6


class CudaMarks:
    """Events in the current stream of a GPU.

    Args:
        device: ``cuda:N``.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        """An event behind all work that has been handed over."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Return when the device is idle."""
        torch.cuda.synchronize(self._device)

    def between(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Milliseconds between two events that have passed."""
        milliseconds: float = start.elapsed_time(end)
        return milliseconds


def make_marks(device: torch.device) -> Marks:
    """What can mark moments of a device."""
    return CudaMarks(device) if device.type == "cuda" else HostMarks()


def parts_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a fitted detector that are timed apart, with their names; parts may share a name.

    They are the networks that the module names (attribute ``networks``), or its children with parameters where it names
    none; and its searches in a memory bank.
    """
    names = getattr(module, "networks", None)
    if names is None:
        names = [name for name, child in module.named_children() if any(True for _ in child.parameters())]
    searches = [part for part in module.modules() if isinstance(part, NearestSearch)]
    return [*((_short(name), module.get_submodule(name)) for name in names), *((SEARCH, part) for part in searches)]


def time_stages(
    module: nn.Module,
    batches: Sequence[Tensor],
    device: torch.device,
    marks: Marks,
    *,
    non_blocking: bool = False,
    seconds: float | None = None,
    now: Callable[[], float] = time.perf_counter,
) -> Stages:
    """Time the parts of passes, one pass at a time: as many as there is time for, 1000 at most.

    Args:
        module: Of the detector, not compiled, on its device.
        batches: In host memory, (B, 3, H, W).
        device: Where the module is.
        marks: What marks moments there.
        non_blocking: Whether the host goes on while images are transferred.
        seconds: No pass begins later, if there were some; ``None`` for no limit.
        now: Seconds, monotonic.
    """
    samples: list[dict[str, float]] = []
    calls: list[Call] = []
    transfers, turn = device.type != "cpu", cycle(batches)

    def one() -> dict[str, float]:
        calls.clear()
        begin = marks.mark()
        images = next(turn).to(device, non_blocking=non_blocking)
        arrived = marks.mark()
        maps, scores = module(images)
        done = marks.mark()
        if transfers:
            maps.cpu(), scores.cpu()
        end = marks.mark()
        marks.wait()
        return durations((begin, arrived, done, end), calls, marks.between, transfers=transfers)

    with _watched(module, marks, calls):
        one()  # with what is done once
        start = now()
        while len(samples) < MOST_PASSES:
            samples.append(one())
            if seconds is not None and now() - start >= seconds and len(samples) >= FEWEST_PASSES:
                break
    return _summed_up(samples)


def durations(
    moments: tuple[Any, Any, Any, Any],
    calls: Sequence[Call],
    between: Callable[[Any, Any], float],
    *,
    transfers: bool,
) -> dict[str, float]:
    """Milliseconds of one pass by stage, in the order of the stages; they make up the whole pass.

    Args:
        moments: Before the transfer, before the module, after it, after the transfer back.
        calls: Of the module's parts, one after the other. Those of one name are one stage.
        between: Milliseconds between two moments.
        transfers: Whether there were any.
    """
    begin, arrived, done, end = moments
    calls = calls or [(_WHOLE, arrived, done)]
    stages = {TO_DEVICE: between(begin, arrived)} if transfers else {}
    stages[PREPROCESSING] = between(arrived, calls[0][1])
    for name, start, stop in calls:
        stages[name] = stages.get(name, 0.0) + between(start, stop)
    stages[BETWEEN] = sum((between(one[2], other[1]) for one, other in pairwise(calls)), 0.0)
    stages[POST] = between(calls[-1][2], done)
    if transfers:
        stages[TO_HOST] = between(done, end)
    return stages


@contextmanager
def _watched(module: nn.Module, marks: Marks, calls: list[Call]) -> Iterator[None]:
    """Mark the beginning and the end of each call of a part, in ``calls``."""
    open_calls: list[Any] = []

    def before(*_: object) -> None:
        open_calls.append(marks.mark())

    def after(name: str) -> Callable[..., None]:
        return lambda *_: calls.append((name, open_calls.pop(), marks.mark()))

    hooks = []
    for name, part in parts_of(module):
        hooks += [part.register_forward_pre_hook(before), part.register_forward_hook(after(name))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _summed_up(samples: Sequence[dict[str, float]]) -> Stages:
    names = dict.fromkeys(name for sample in samples for name in sample)
    parts = []
    for name in names:
        ordered = np.sort([sample.get(name, 0.0) for sample in samples])
        parts.append(Stage(name=name, p50=float(np.median(ordered)), p99=percentile(ordered, 0.99)))
    return Stages(passes=len(samples), parts=parts)


def _short(name: str) -> str:
    """``backbone`` of ``features.backbone.network``, ``teacher`` of ``scales.0.teacher``."""
    return name.removesuffix(".network").rpartition(".")[2]
