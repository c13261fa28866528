"""The folder of a run: which one, the lock that one command holds on it, the plan kept in it, its report."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from bench.errors import UsageError
from bench.forecast import Task
from results.atomic import write_atomically
from results.store import RECORD_FILE, RunStore
from results.timing_store import TIMING_FOLDER

if TYPE_CHECKING:  # it loads torch, which bench status does without
    from bench.cells import Cell

RUNS = Path("runs")
"""Where runs go without ``--out``."""
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class PlannedCell:
    """What a run folder says of a cell before it has a record.

    Attributes:
        key: Of the record that it will have.
        folder: Name of its folder.
        method: Name in the registry.
        scenario: ``COLLECTION/SCENARIO``.
        seed: Of the cell.
        training_steps: Optimiser steps to expect; ``None`` for a method that does not train.
        train_images: Normal images to fit on.
        test_images: Images to predict and score.
    """

    key: str
    folder: str
    method: str
    scenario: str
    seed: int
    training_steps: int | None = None
    train_images: int = 0
    test_images: int = 0

    @classmethod
    def of(cls, cell: "Cell") -> "PlannedCell":
        """What is said of a cell."""
        scenario = cell.scenario
        named = (cell.key, cell.id.folder, cell.entrant.name, scenario.id, cell.seed)
        return cls(*named, cell.training_steps, len(scenario.train), len(scenario.test))

    @property
    def task(self) -> Task:
        """What is to be done in it, as far as its time depends on it."""
        return Task(self.method, self.scenario, self.training_steps, self.train_images, self.test_images)

    @property
    def label(self) -> str:
        """Method, scenario and seed, for display."""
        return f"{self.method} · {self.scenario} · {self.seed}"


def new_folder() -> Path:
    """A folder under ``runs`` that is named after the time, in UTC."""
    return RUNS / datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")


def choose_folder(out: Path | None, keys: Sequence[str]) -> tuple[Path, str]:
    """The run folder, and what to say about the choice.

    The one given; else the newest under ``runs`` that has the very same cells, so that the same command continues;
    else a new one.

    Args:
        out: The one that the user has named, if any.
        keys: Of the cells to run, sorted.
    """
    if out is not None:
        return out, ""
    for path in sorted(RUNS.glob(f"*/{PLAN_FILE}"), reverse=True):
        try:
            planned = json.loads(path.read_text())["keys"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if planned == list(keys):
            return path.parent, " (continued: it has the same cells)"
    return new_folder(), ""


def write_plan(out: Path, command: str, cells: "Sequence[Cell]") -> None:
    """Keep which cells a run folder is for, unless it says so already.

    Raises:
        ResultError: The operating system refused.
    """
    named = sorted((PlannedCell.of(cell) for cell in cells), key=lambda cell: cell.key)
    if read_plan(out) == named:
        return
    document = {"command": command, "keys": [cell.key for cell in named], "cells": [asdict(cell) for cell in named]}
    text = json.dumps(document, indent=1) + "\n"
    write_atomically(out / PLAN_FILE, lambda file: file.write(text.encode()))


def read_plan(out: Path) -> list[PlannedCell]:
    """The cells that the last command wanted of a run folder, by key; empty if nothing says."""
    try:
        return [PlannedCell(**cell) for cell in json.loads((out / PLAN_FILE).read_text())["cells"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the run folder and let no other run write to it; the lock goes with the process, however that ends.

    Raises:
        UsageError: Another process holds it, or the folder cannot be written.
    """
    make_folder(out)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"another bench run is writing to {out}\n  Wait for it, or choose another --out.") from error
    except OSError as error:
        raise _unwritable(out, error) from error
    try:
        yield
    finally:
        lock.release()


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it.

    Raises:
        UsageError: The operating system refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def update_report(store: RunStore) -> Path:
    """Write the report of a run folder, unless it is up to date, and return its folder."""
    from reports.report import write_report

    folder = store.root / "report"
    if not _is_current(folder, store):
        write_report([store.root], folder)
    return folder


def _is_current(report: Path, store: RunStore) -> bool:
    """Whether a report was written whole after the last record, in every format: ``cells.csv`` is its last file."""
    files = [report / name for name in ("report.md", "report.tex", "cells.csv")]
    if not all(file.exists() for file in files):
        return False
    written = min(file.stat().st_mtime_ns for file in files)
    sources = [*store.root.glob(f"cells/*/{RECORD_FILE}"), *store.root.glob(f"{TIMING_FOLDER}/*.jsonl")]
    return all(path.stat().st_mtime_ns < written for path in sources)


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(f"cannot write to {folder}: {error.strerror or error}\n  Choose another folder with --out.")
