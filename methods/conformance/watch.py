"""What a detector does to the process and the disk beside what it was asked for."""

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch

_recorders: list[set[str]] = []
"""An audit hook stays for the life of a process; it looks on only while somebody records."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@contextmanager
def written_files() -> Iterator[set[str]]:
    """Collect the absolute paths of files that Python code opens for writing, or renames to.

    What a library writes without Python, as some of those in C++ or Rust do, is not seen.
    """
    _install()
    paths: set[str] = set()
    _recorders.append(paths)
    try:
        yield paths
    finally:
        _recorders.pop()


@cache
def _install() -> None:
    sys.addaudithook(_record)


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if not _recorders:
        return
    if event == "open":
        path, _, flags = arguments
        if not (isinstance(flags, int) and flags & _WRITING):
            return
    elif event == "os.rename":
        path = arguments[1]
    else:
        return
    if isinstance(path, (str, bytes, os.PathLike)):
        _recorders[-1].add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - reads nothing from the disk


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Let :mod:`tempfile` use a folder for a while."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def empty_cache(folder: Path) -> Iterator[None]:
    """Point ``$BENCH_CACHE``, where downloaded weights are looked for, to an empty folder for a while."""
    before = os.environ.get("BENCH_CACHE")
    os.environ["BENCH_CACHE"] = str(folder / "empty")
    try:
        yield
    finally:
        del os.environ["BENCH_CACHE"]
        if before is not None:
            os.environ["BENCH_CACHE"] = before


def stray(paths: set[str], allowed: list[Path]) -> list[str]:
    """Those of some paths that are outside all allowed folders; Python's compiled modules and devices never are."""
    roots = [Path(os.devnull).parent, *(folder.resolve() for folder in allowed)]

    def strays(path: Path) -> bool:
        return "__pycache__" not in path.parts and not any(path.is_relative_to(root) for root in roots)

    return sorted(path for path in paths if strays(Path(path).resolve()))


def settings() -> dict[str, object]:
    """What a detector shares with everything else in the process, by name."""
    return {
        "the state of Python's random generator": random.getstate(),
        "the state of NumPy's global generator": repr(np.random.get_state()),  # noqa: NPY002
        "the state of PyTorch's global generator": torch.get_rng_state().numpy().tobytes(),
        "PyTorch's default data type": torch.get_default_dtype(),
        "whether gradients are computed": torch.is_grad_enabled(),
        "the choice of deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "PyTorch's number of threads": torch.get_num_threads(),
        "the working directory": Path.cwd(),
    }
