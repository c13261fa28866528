"""What cells are expected to take, from records of cells that have run.

A fit takes its steps times the time of a step; everything else takes as long as its images do. Both come from records:
of the same method on the same scenario, else of the same method on others, else on another device. Nothing is guessed
for a method of which nothing has run.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from results.beside import read_object
from results.store import RECORD_FILE

Basis = Literal["this scenario", "other scenarios", "another device"]
"""What an estimate is made from, the surest first."""
BASES: tuple[Basis, ...] = ("this scenario", "other scenarios", "another device")


@dataclass(frozen=True)
class Task:
    """What is to be done in a cell, as far as its time depends on it.

    Attributes:
        method: Name in the registry.
        scenario: ``COLLECTION/SCENARIO``.
        training_steps: Optimiser steps; ``None`` for a method that does not train.
        train_images: Normal images to fit on.
        test_images: Images to predict and score.
    """

    method: str
    scenario: str
    training_steps: int | None
    train_images: int
    test_images: int


@dataclass(frozen=True)
class Observation:
    """What a cell that has run took.

    Attributes:
        task: What it did.
        device: Name of the GPU, or of the CPU with its threads.
        fit: Seconds of the fit; ``None`` where it took a kept model.
        rest: Seconds of everything else.
        peak_memory: Bytes of main memory; ``None`` where nobody counted.
        files: What it has left beside its record: name to bytes.
    """

    task: Task
    device: str
    fit: float | None
    rest: float
    peak_memory: int | None = None
    files: Mapping[str, int] = field(default_factory=dict)

    def predict(self, task: Task) -> float | None:
        """Seconds that another cell of the same method takes, if time is in proportion to steps and images."""
        if self.fit is None:
            return None
        done, due = self.task.training_steps, task.training_steps
        if (done is None) != (due is None) or done == 0:
            return None
        share = due / done if due and done else task.train_images / max(1, self.task.train_images)
        return self.fit * share + self.rest * task.test_images / max(1, self.task.test_images)


@dataclass(frozen=True)
class Estimate:
    """What a cell is expected to take.

    Attributes:
        seconds: Median of what the observations say.
        least: Least of that.
        greatest: Greatest of that.
        basis: What they were made on.
        observations: How many there are.
        peak_memory: Bytes of main memory, the greatest observed; ``None`` where nobody counted.
        files: The greatest observed of each file beside the record: name to bytes.
    """

    seconds: float
    least: float
    greatest: float
    basis: Basis
    observations: int
    peak_memory: int | None
    files: Mapping[str, int]


class Forecast:
    """Estimates from observations.

    Args:
        observations: Of cells that have run.
        device: That the cells are to run on, as an observation names it.
    """

    def __init__(self, observations: Iterable[Observation], device: str) -> None:
        self._device = device
        self._by_method: dict[str, list[Observation]] = defaultdict(list)
        for one in observations:
            self._by_method[one.task.method].append(one)

    def estimate(self, task: Task) -> Estimate | None:
        """What a cell is expected to take; ``None`` if nothing is known of its method."""
        own = self._by_method.get(task.method, [])
        here = [one for one in own if one.device == self._device]
        same = [one for one in here if one.task.scenario == task.scenario]
        for basis, chosen in zip(BASES, (same, here, own), strict=True):
            predictions = [seconds for one in chosen if (seconds := one.predict(task)) is not None]
            if predictions:
                peaks = [one.peak_memory for one in chosen if one.peak_memory is not None]
                names = {name for one in chosen for name in one.files}
                return Estimate(
                    statistics.median(predictions),
                    min(predictions),
                    max(predictions),
                    basis,
                    len(predictions),
                    max(peaks, default=None),
                    {name: max(one.files.get(name, 0) for one in chosen) for name in names},
                )
        return None


def observe(runs: Sequence[Path]) -> Iterator[Observation]:
    """What the cells of run folders took; records that failed, or cannot be read, say nothing."""
    for run in runs:
        for path in run.glob(f"cells/*/{RECORD_FILE}"):
            document = read_object(path)
            observation = observation_of(document) if document is not None else None
            if observation is not None:
                yield replace(observation, files=_sizes(path.parent))


def observation_of(document: Mapping[str, Any]) -> Observation | None:
    """What a cell took, from its record as JSON; ``None`` if it failed, or its times are not known."""
    timings, data = document.get("timings"), document.get("data")
    if not timings or not data or data.get("train") is None:
        return None
    environment = document["environment"]
    task = Task(
        document["method"],
        f"{document['collection']['name']}/{document['scenario']}",
        document.get("training_steps"),
        data["train"],
        data["test_normal"] + data["test_anomalous"],
    )
    kept = "fit" in document.get("implementation", {})
    return Observation(
        task,
        device_name(environment.get("gpu"), environment["cpu"], environment["threads"]),
        None if kept else timings["fit"],
        timings["decode"] + timings["maps"] + timings["metrics"],
        document.get("peak_memory"),
    )


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}


def device_name(gpu: str | None, cpu: str, threads: int) -> str:
    """What a cell ran on, as far as its time depends on it."""
    return gpu or f"{cpu}, {threads} thread{'' if threads == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as ``h:mm:ss``, or ``m:ss`` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
