"""The files of a machine's timings: a line per process, and every sample beside it."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from pydantic_core import from_json

from results.atomic import write_atomically
from results.errors import ResultError
from results.store import safe_name
from results.timing_record import TIMING_SCHEMA_VERSION, TimingRecord

TIMING_FOLDER = "timing"
"""Of a run folder."""
_COMMIT_LENGTH = 7
_INSTALLED = "install"


@dataclass(frozen=True)
class Samples:
    """Every timed pass of one process, in its order; milliseconds, each of shape (passes,).

    Attributes:
        wall_ms: By the host's clock.
        cpu_ms: Time of all threads of the process.
        event_ms: By events on the device; ``None`` on a CPU.
        enqueue_ms: Until the host had handed over everything; ``None`` on a CPU.
    """

    wall_ms: npt.NDArray[np.float64]
    cpu_ms: npt.NDArray[np.float64]
    event_ms: npt.NDArray[np.float64] | None = None
    enqueue_ms: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class TimingFiles:
    """What some files hold.

    Attributes:
        records: Each once, by time.
        notes: One sentence per line that was passed over.
    """

    records: tuple[TimingRecord, ...]
    notes: tuple[str, ...]


def timing_file_name(machine: str, started: datetime, git_commit: str | None) -> str:
    """Name the file of one command on one machine: ``<machine>_<utc>_<commit>.jsonl``.

    Args:
        machine: Its id.
        started: When the command did, in UTC.
        git_commit: Of the checkout; ``None`` for an installed package, which is called so.
    """
    commit = git_commit[:_COMMIT_LENGTH] if git_commit else _INSTALLED
    return f"{safe_name(machine)}_{started:%Y%m%dT%H%M%SZ}_{safe_name(commit)}.jsonl"


def append_timing(path: Path, record: TimingRecord) -> None:
    """Append a record to a file as one whole line, or leave the file as it was; one process at a time may do so.

    What a killed process has left of a line is removed first. The folder is made if need be.

    Raises:
        ResultError: The operating system refused, for example because the disk is full.
    """
    line = record.model_dump_json().encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer nothing is left to be written when the file is cut back.
        with path.open("a+b", buffering=0) as file:
            file.seek(0)
            end = file.readall().rfind(b"\n") + 1
            file.truncate(end)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(end)
                raise
    except OSError as error:
        raise ResultError(
            f"cannot write {path}: {error.strerror or error}. The timings before it are unchanged; "
            "make room or choose another folder with --out, then time this row again"
        ) from error


def write_samples(path: Path, samples: Samples) -> None:
    """Write the samples of one process as ``.npz``.

    Raises:
        ResultError: The operating system refused.
    """
    arrays = {field.name: getattr(samples, field.name) for field in fields(samples)}
    kept = {name: array for name, array in arrays.items() if array is not None}
    write_atomically(path, lambda file: np.savez_compressed(file, **kept))


def read_samples(path: Path) -> Samples:
    """Read what :func:`write_samples` wrote.

    Raises:
        ResultError: The file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return Samples(**{name: np.asarray(stored[name], np.float64) for name in stored.files})
    except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
        raise ResultError(f"cannot read the samples {path}: {error}; time this row again") from error


def read_timings(paths: Sequence[Path]) -> TimingFiles:
    """Read the timings of several machines.

    The last line of a file may be unfinished, as its writer was killed: it is passed over. The same line in two files
    counts once.

    Args:
        paths: Files, run folders (their ``timing`` is read), or any folders (every ``.jsonl`` below them is).

    Raises:
        ResultError: A file cannot be read, a line is damaged, or a newer version wrote it.
    """
    records: dict[str, TimingRecord] = {}
    notes: list[str] = []
    for path in _files(paths):
        for record in _lines(path, notes):
            records.setdefault(record.model_dump_json(), record)
    ordered = sorted(records.items(), key=lambda item: (item[1].created, item[0]))
    return TimingFiles(tuple(record for _, record in ordered), tuple(notes))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
        elif (path / TIMING_FOLDER).is_dir() or (path / "cells").is_dir():
            yield from sorted((path / TIMING_FOLDER).rglob("*.jsonl"))
        else:
            yield from sorted(path.rglob("*.jsonl"))


def _lines(path: Path, notes: list[str]) -> Iterator[TimingRecord]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ResultError(f"cannot read the timings {path}: {error.strerror or error}") from error
    lines = text.split(b"\n")
    if not _is_json(lines[-1] or b"0"):
        lines.pop()
        notes.append(f"The last line of {path.name} is unfinished, as its process was killed: it is left out.")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _record(line, f"{path}, line {number}")


def _is_json(text: bytes) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True


def _record(line: bytes, place: str) -> TimingRecord:
    remedy = "remove the line, or time on that machine again"
    try:
        document = from_json(line)
    except ValueError as error:
        raise ResultError(f"{place} is damaged ({error}); {remedy}") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise ResultError(f"{place} is not a timing: it has no schema_version; {remedy}")
    if version > TIMING_SCHEMA_VERSION:
        raise ResultError(
            f"{place} has timing schema version {version}, this installation reads up to {TIMING_SCHEMA_VERSION}; "
            "install the version of this package that wrote it, or a newer one"
        )
    try:
        return TimingRecord.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise ResultError(
            f"{place} does not follow timing schema version {TIMING_SCHEMA_VERSION}: {where}: {first['msg']} "
            f"({error.error_count()} problems); {remedy}"
        ) from error
