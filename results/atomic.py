"""Files that are either wholly there or not there at all."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

from results.errors import ResultError


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Create or replace ``path`` in one step, with its folder; a crash or a full disk leaves the old state.

    Several processes may write the same path at once: one of them wins, whole.

    Args:
        path: The file.
        write: Is given the open file and fills it.

    Raises:
        ResultError: The operating system refused, for example because the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise ResultError(
            f"cannot write {path}: {error.strerror or error}. What was there before is unchanged; "
            "make room or choose another folder with --out, then run the same command again"
        ) from error


def sync_directory(directory: Path) -> None:
    """Make the rename itself survive a power cut, where the platform can."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
