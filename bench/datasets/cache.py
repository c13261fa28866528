"""A cache of decoded images on disk, and the digests that address it."""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from bench.errors import DataError
from methods.weights.files import default_cache_directory as default_cache_directory

_log = logging.getLogger(__name__)

Found = TypeVar("Found")

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_Entry = list[int | str]
"""Size, modification and change time of a file, and its digest."""

_BATCH = 64
"""Items that a thread takes at a time: handing them over one by one costs more than reading a small file."""

_AT_ONCE = 2**22
"""Bytes up to which a file is read in one go."""

_SETTLED_NS = 2_000_000_000
"""A file changed less than this ago could change again within its time stamp's resolution."""


@dataclass(frozen=True)
class Cache:
    """What costs time to compute and can always be computed again; may be deleted whenever no run is going.

    Everything in it is addressed by what it was made from and becomes visible by an atomic rename, so several
    processes may share it. A cache that cannot be written costs time, never a run: callers then work without it.

    Attributes:
        directory: Where it lives; made when first written.
        enabled: ``False`` reads and writes nothing (``--no-cache``). The demo collection, which has to be files
            somewhere, is kept in ``directory`` all the same.
    """

    directory: Path
    enabled: bool = True

    def digests(self, paths: Sequence[Path]) -> list[str]:
        """SHA-256 of each file's content, 64 hexadecimal digits, in the order given.

        A file is read again only when its size, modification or change time differ from last time.

        Raises:
            DataError: A file cannot be read.
        """
        folders = {folder: _index_of(folder) for folder in {path.parent for path in paths}}
        known = {folder: self._read_index(name) for folder, name in folders.items()}
        asked = [(path, known[path.parent].get(path.name)) for path in paths]
        digested = map_in_batches(_digest, asked)
        updated, now = set(), time.time_ns()
        for path, (state, digest) in zip(paths, digested, strict=True):
            entry: _Entry = [*state, digest]
            if known[path.parent].get(path.name) != entry and now - max(state[1:]) > _SETTLED_NS:
                known[path.parent][path.name] = entry
                updated.add(path.parent)
        for folder in updated:
            self._write_index(folders[folder], known[folder])
        return [digest for _, digest in digested]

    def remembered(self, kind: str, key: str, find: Callable[[], Found]) -> Found:
        """What ``find`` has found before under this key, else what it finds now, which is remembered.

        Args:
            kind: Of what is found; a folder's name.
            key: Digest of everything that determines it, the rule by which it is found included.
            find: Finds it; returns values that JSON can hold, whose arrays are lists.

        Raises:
            Exception: Whatever ``find`` raises.
        """
        if not self.enabled:
            return find()
        path = self.directory / kind / f"{key}.json"
        try:
            return json.loads(path.read_text())["found"]  # type: ignore[no-any-return]
        except (OSError, ValueError, KeyError, TypeError):
            found = find()
        try:
            with replace_atomically(path) as file:
                file.write(json.dumps({"found": found}).encode())
        except OSError as error:
            _log.warning("cannot remember %s, they are found anew each time: %s", kind, error)
        return found

    def _read_index(self, name: str) -> dict[str, _Entry]:
        if not self.enabled:
            return {}
        try:
            index = json.loads((self.directory / "digests" / name).read_text())
        except (OSError, ValueError):
            return {}
        return index if isinstance(index, dict) else {}

    def _write_index(self, name: str, index: dict[str, _Entry]) -> None:
        if not self.enabled:
            return
        try:
            with replace_atomically(self.directory / "digests" / name) as file:
                file.write(json.dumps(index).encode())
        except OSError as error:
            _log.warning("cannot remember file digests, they are computed anew each time: %s", error)


@contextmanager
def replace_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes ``path``'s place when the block ends, and is gone when it raises.

    Raises:
        OSError: The folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def map_in_batches(compute: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Apply a function to many small items, on all cores and while others wait for the disk.

    Returns:
        The results, in the order of the items.
    """
    batches = [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]
    with ThreadPoolExecutor(2 * usable_cores()) as pool:
        return [result for batch in pool.map(lambda batch: list(map(compute, batch)), batches) for result in batch]


def usable_cores() -> int:
    """CPU cores this process may run on, at most 16: more threads than that wait for the disk."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)


def _index_of(folder: Path) -> str:
    return hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:32] + ".json"


def _digest(asked: tuple[Path, _Entry | None]) -> tuple[list[int], str]:
    path, known = asked
    try:
        status = path.stat()
        state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        if known is not None and known[:-1] == state:
            return state, str(known[-1])
        with path.open("rb", buffering=0) as file:
            if status.st_size <= _AT_ONCE:
                return state, hashlib.sha256(file.readall()).hexdigest()
            return state, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
