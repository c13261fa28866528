"""Time fitted detectors: which rows, in how many processes, in which order; each process records itself.

Processes of all rows run one after the other, in an order that is drawn anew for every round (a randomised complete
block), so that what drifts meanwhile touches all rows alike.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.errors import DataError
from bench.models import ModelDescription, kept_models, read_description
from bench.timing.job import SESSION_FORMAT, Comparison, Extras, Inspection, Job, Setup, Trigger
from results.parity import Parity
from results.timing_record import Subject, TimingRecord

NO_EXTRAS = Extras()
_LAST_LINES = 12
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class KeptModel:
    """A fitted detector of a run folder.

    Attributes:
        folder: Of its cell.
        description: What it is.
    """

    folder: Path
    description: ModelDescription


@dataclass(frozen=True)
class Row:
    """One fitted detector in one setup: what becomes a row of a table.

    Attributes:
        model: The detector.
        setup: How it is run.
        line: How a production line triggers; ``None`` for the other modes.
    """

    model: KeptModel
    setup: Setup
    line: Trigger | None = None

    @property
    def label(self) -> str:
        """Method and setup, for display."""
        setup = self.setup
        parts = [self.model.description.method, setup.protocol, setup.mode, f"batch {setup.batch}", setup.precision]
        parts += [setup.backend] if setup.backend != "eager" else []
        parts += ["fused"] if setup.fused else []
        return " · ".join([*parts, *(["cold cache"] if setup.cache == "cold" else [])])


@dataclass(frozen=True)
class Timed:
    """A process has recorded itself."""

    row: Row
    process: int
    record: TimingRecord


@dataclass(frozen=True)
class Refused:
    """A row that cannot be timed, and why: the last lines that its process printed."""

    row: Row
    reason: str


Event = Timed | Refused


@dataclass(frozen=True)
class _Failed:
    reason: str


@dataclass(frozen=True, eq=False)
class _Due:
    """A row that can be timed: what its model is, the file with its reference maps, and how exact it is."""

    row: Row
    subject: Subject
    reference: Path
    compared: Parity | _Failed | None


def models_of_run(root: Path) -> list[KeptModel]:
    """The models that a run folder keeps, one of each method in each configuration: the first scenario's and seed's.

    What takes the time of a pass does not depend on the training images, but for the size of a memory bank.

    Raises:
        DataError: There is none, or a description is damaged.
    """
    found: dict[tuple[str, str], KeptModel] = {}
    for folder in sorted(kept_models(root).values()):
        description = read_description(folder)
        key = description.method, json.dumps(description.config, sort_keys=True)
        found.setdefault(key, KeptModel(folder, description))
    if not found:
        raise DataError(
            f"no fitted detector is kept in {root}\n"
            "  bench run --keep-models keeps them; bench time --methods fits methods and times them."
        )
    return list(found.values())


def time_rows(
    rows: Sequence[Row],
    *,
    processes: int,
    time_budget: float | None,
    data_root: Path,
    out: Path,
    command: str,
    extras: Extras = NO_EXTRAS,
) -> Generator[Event]:
    """Time rows and yield what happens to each process.

    Args:
        rows: What to time.
        processes: Per row.
        time_budget: Seconds of passes per row, shared by its processes; ``None`` for no limit.
        data_root: Folder of the collections, whose test images show how exact a row is.
        out: Folder of the records.
        command: What the records say has made them.
        extras: What is measured besides.
    """
    session = datetime.now(UTC).strftime(SESSION_FORMAT)
    draw = random.Random(session)
    order = 0
    with tempfile.TemporaryDirectory(prefix="bench-timing-") as scratch:
        inspected = _inspect(rows, Path(scratch))
        due: list[_Due] = []
        for row in rows:
            known = inspected[row.model.folder]
            if isinstance(known, _Failed):
                yield Refused(row, known.reason)
            else:
                due.append(_Due(row, *known, _compare(row, known[1].with_suffix(".plain.npz"), data_root)))
        for process in range(processes):
            for one in draw.sample(due, len(due)):
                job = Job(
                    model=one.row.model.folder,
                    reference=one.reference,
                    subject=one.subject,
                    setup=one.row.setup,
                    line=one.row.line,
                    exactness=one.compared if isinstance(one.compared, Parity) else None,
                    not_compared=one.compared.reason if isinstance(one.compared, _Failed) else "",
                    extras=extras,
                    time_budget=None if time_budget is None else time_budget / processes,
                    process=process,
                    processes=processes,
                    order=order,
                    session=session,
                    command=command,
                    out=out,
                )
                order += 1
                answer = _ask("time", job.model_dump_json(), one.row.setup)
                if isinstance(answer, str):
                    yield Timed(one.row, process, TimingRecord.model_validate_json(answer))
                else:
                    due.remove(one)
                    yield Refused(one.row, answer.reason)


def _inspect(rows: Sequence[Row], scratch: Path) -> dict[Path, tuple[Subject, Path] | _Failed]:
    """What each model is, and the file with its reference maps, by its folder."""
    inspected: dict[Path, tuple[Subject, Path] | _Failed] = {}
    for row in rows:
        folder, setup = row.model.folder, row.setup
        if folder in inspected:
            continue
        reference = scratch / f"{len(inspected)}.npz"
        inspection = Inspection(model=folder, reference=reference, device=setup.device, threads=setup.threads)
        answer = _ask("inspect", inspection.model_dump_json(), setup)
        inspected[folder] = (Subject.model_validate_json(answer), reference) if isinstance(answer, str) else answer
    return inspected


def _compare(row: Row, plain: Path, data_root: Path) -> Parity | _Failed | None:
    """How exact a row is; nothing of what the others are compared with."""
    if row.setup.plain:
        return None
    comparison = Comparison(model=row.model.folder, plain=plain, setup=row.setup, data_root=data_root)
    answer = _ask("compare", comparison.model_dump_json(), row.setup)
    return Parity.model_validate_json(answer) if isinstance(answer, str) else answer


def _ask(task: str, job: str, setup: Setup) -> str | _Failed:
    """Let a fresh process do a task; return what it printed, or why it did not work."""
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(setup.threads))}
    done = subprocess.run(
        [sys.executable, "-m", "bench.timing.process", task],
        input=job,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode == 0:
        return done.stdout.strip().splitlines()[-1]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return _Failed("\n".join(lines[-_LAST_LINES:]) or f"its process ended with {done.returncode}")
