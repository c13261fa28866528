"""Pretrained weights: where they come from, whether they are the right ones, and what a result row says of them."""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from methods.download import Download, Progress, download_file
from methods.errors import WeightsError


def default_cache_directory() -> Path:
    """``$BENCH_CACHE``, else ``~/.cache/anomaly-bench``."""
    return Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "anomaly-bench")


def default_weights_directory() -> Path:
    """Where downloaded weights are kept: ``weights`` in the cache directory."""
    return default_cache_directory() / "weights"


@dataclass(frozen=True)
class WeightIdentity:
    """What a result row says about pretrained weights.

    Attributes:
        name: The network, for example ``wide_resnet101_2``.
        source: ``download``, ``file``, ``embedded`` or ``random``.
        tag: Which training of it, for example ``torchvision IMAGENET1K_V1``.
        sha256: Of the weights file, 64 hexadecimal digits; ``None`` for random weights.
    """

    name: str
    source: str
    tag: str
    sha256: str | None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits; computed once per path, size and modification time."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    download: Download, directory: Path, otherwise: str, progress: Progress | None = None, *, replace: bool = False
) -> Path:
    """Return the downloaded file, fetching it on first use; safe with several processes.

    A download that was cut off continues at the next call.

    Args:
        download: What to fetch and the digest it must have.
        directory: Where it is kept.
        otherwise: What a user without network can do instead, to end a sentence that begins "or".
        progress: Called after each piece.
        replace: Fetch it again if the file that is there is another one.

    Returns:
        Path of the verified file.

    Raises:
        WeightsError: The server cannot be reached or the file is not the expected one.
    """
    from filelock import FileLock

    target = directory / download.file_name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if replace and target.exists() and not sha256_of(target).startswith(download.sha256):
                target.unlink()
            if not target.exists():
                download_file(download, target, progress)
        actual = sha256_of(target)
    except OSError as error:
        raise WeightsError(
            f"cannot get {download.file_name}: {error}\n"
            f"  On a machine with network access fetch {download.url} (SHA-256 {download.sha256}),\n"
            f"  and here run bench weights import FILE, which puts it at {target}, or {otherwise}."
        ) from error
    if not actual.startswith(download.sha256):
        raise WeightsError(
            f"{target} is not the file it should be: SHA-256 is {actual}, expected {download.sha256}\n"
            f"  bench weights fetch {download.file_name} replaces it by {download.url};\n"
            f"  or {otherwise}."
        )
    return target
