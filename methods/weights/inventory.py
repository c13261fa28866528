"""Which files of pretrained weights are there, and how one that was fetched elsewhere gets into the cache."""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from methods.download import Download, check_room
from methods.errors import WeightsError
from methods.weights.catalogue import WeightFile, weight_files
from methods.weights.files import sha256_of

State = Literal["embedded", "in cache", "missing", "corrupt"]


@dataclass(frozen=True)
class KeptFile:
    """A known file, and whether it is there.

    Attributes:
        name: In the catalogue.
        file: What the catalogue says of it.
        state: ``corrupt`` is a file in the cache that is not the one it should be, or that cannot be read.
        path: Where it is, or where it would be kept; ``None`` if no download is pinned.
        sha256: Of what is there, 64 hexadecimal digits; ``None`` if nothing is, or it cannot be read.
    """

    name: str
    file: WeightFile
    state: State
    path: Path | None
    sha256: str | None = None

    @property
    def bytes(self) -> int | None:
        """Size of what is there."""
        return self.path.stat().st_size if self.path is not None and self.path.is_file() else None


def look_up(name: str, weights_dir: Path) -> KeptFile:
    """Find out whether a known file is there, and whether it is the right one: reads all of it.

    Args:
        name: In the catalogue.
        weights_dir: Where downloads are kept.
    """
    file = weight_files()[name]
    if file.embedded is not None:
        try:
            path = file.embedded(weights_dir)
        except WeightsError:  # the package that carries it is not installed
            return KeptFile(name, file, "missing", None)
        there = path.is_file()
        return KeptFile(name, file, "embedded" if there else "missing", path, sha256_of(path) if there else None)
    if file.download is None:
        return KeptFile(name, file, "missing", None)
    path = weights_dir / file.download.file_name
    if not path.exists():
        return KeptFile(name, file, "missing", path)
    try:
        digest = sha256_of(path)
    except OSError:
        return KeptFile(name, file, "corrupt", path)
    return KeptFile(name, file, "in cache" if digest.startswith(file.download.sha256) else "corrupt", path, digest)


def recognise(digest: str) -> str | None:
    """Name of the known download whose SHA-256 this is, whatever a file with it is called."""
    downloads = {name: file.download for name, file in weight_files().items() if file.download is not None}
    return next((name for name, known in downloads.items() if digest.startswith(known.sha256)), None)


def candidates(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files among some paths and in the folders among them, each once, links followed.

    A Hugging Face cache calls its files by their digest: those that are none of ours are passed over unread.

    Raises:
        WeightsError: A path does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise WeightsError(f"{path} does not exist\n  Name a file, or a folder with files such as checkpoints.")
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            real = file.resolve()
            named_by_digest = re.fullmatch(r"[0-9a-f]{64}", real.name) is not None
            if real in seen or not real.is_file() or (named_by_digest and recognise(real.name) is None):
                continue
            seen.add(real)
            yield file


def keep(source: Path, download: Download, directory: Path) -> Path:
    """Copy a file that is the one of a download to where that would be kept; it is there whole or not at all.

    Safe with several processes. What is there already stays if it is the right file.

    Args:
        source: The file.
        download: What it is.
        directory: Where downloads are kept.

    Returns:
        Path of the copy.

    Raises:
        WeightsError: It cannot be read or written, the disk is full, or it changed meanwhile.
    """
    from filelock import FileLock

    target = directory / download.file_name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if target.exists() and sha256_of(target).startswith(download.sha256):
                return target
            check_room(source.stat().st_size, directory)
            with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=directory) as folder:
                copy = Path(shutil.copyfile(source, Path(folder) / target.name))
                if not sha256_of(copy).startswith(download.sha256):
                    raise WeightsError(f"{source} is not what it was a moment ago: run the same command again")
                copy.replace(target)
    except OSError as error:
        raise WeightsError(
            f"cannot keep {source} in {directory}: {error.strerror or error}\n"
            "  Make room, or name another folder with --weights-dir, here and of bench run."
        ) from error
    return target
