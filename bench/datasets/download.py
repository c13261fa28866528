"""Collections whose owners let everybody download them by a direct link, from there to a folder of images."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from filelock import FileLock

from bench.datasets.archives import unpack
from bench.datasets.cache import default_cache_directory
from bench.datasets.catalogue import Archive, KnownCollection, known_by_folder
from bench.errors import DataError, UsageError
from methods.download import Download, DownloadError, download_file
from methods.weights.files import sha256_of

Watch = Callable[[str, int, int | None], None]
"""Is told what is being done, and how many bytes of how many are done; of ``None`` where nobody says."""


def folder_of(known: KnownCollection, root: Path) -> Path | None:
    """Where a collection lies under a data root, whatever of its names the folder bears; ``None`` if it does not.

    Raises:
        DataError: The folder may not be listed.
    """
    if not root.is_dir():
        return None
    try:
        folders = [folder for folder in sorted(root.iterdir()) if not folder.name.startswith(".") and folder.is_dir()]
        return next((folder for folder in folders if known_by_folder(folder) is known and any(folder.iterdir())), None)
    except OSError as error:
        raise DataError(f"cannot list {root}: {error.strerror or error}") from error


def licence_accepted(known: KnownCollection) -> bool:
    """Whether the user has once accepted the licence, in the words that it has now."""
    try:
        return _acceptance(known).read_text(encoding="utf-8") == _terms(known)
    except OSError:
        return False


def accept_licence(known: KnownCollection) -> None:
    """Remember that the user accepts the licence.

    Raises:
        DataError: The note cannot be written.
    """
    try:
        _acceptance(known).parent.mkdir(parents=True, exist_ok=True)
        _acceptance(known).write_text(_terms(known), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"cannot remember that the licence is accepted in {_acceptance(known)}: {error.strerror or error}\n"
            f"  Point BENCH_CACHE at a folder that can be written"
        ) from error


def download_collection(known: KnownCollection, root: Path, watch: Watch) -> Path:
    """Fetch a collection's archives and unpack them; its folder appears when all of it is there.

    Until then everything lies in a hidden folder beside it, from which the same call continues after an interruption.

    Args:
        known: With archives; its licence accepted.
        root: The data root, made if it does not exist.
        watch: Is called after each piece.

    Returns:
        The collection's folder.

    Raises:
        UsageError: The licence is not accepted.
        DataError: A download fails, an archive is not the published one or cannot be trusted, the disk is too small
            or cannot be written; says how to go on.
    """
    if not licence_accepted(known):
        raise UsageError(f"the licence of {known.title} is not accepted: {known.licence or known.page}")
    target, staging = root / known.name, root / f".{known.name}.partial"
    lock = root / f".{known.name}.lock"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if folder_of(known, root) is None:  # another process may have fetched it meanwhile
                staging.mkdir(exist_ok=True)
                _check_room(known, staging)
                _fill(known, staging, watch)
                (staging / "content").replace(target)
                shutil.rmtree(staging)
            lock.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write {known.title} to {root}: {error.strerror or error}\n"
            f"  Name another folder with --to, and pass it as --data-root afterwards"
        ) from error
    return folder_of(known, root) or target


def _fill(known: KnownCollection, staging: Path, watch: Watch) -> None:
    files = [_fetched(archive, staging, watch) for archive in known.archives]
    content = staging / "content"
    shutil.rmtree(content, ignore_errors=True)  # of an unpacking that was interrupted
    content.mkdir()
    for archive, file in zip(known.archives, files, strict=True):
        unpack(file, content / archive.folder, archive.inside, partial(watch, f"unpacking {file.name}"))


def _fetched(archive: Archive, staging: Path, watch: Watch) -> Path:
    """The file of an archive, fetched unless it is there."""
    download = Download(archive.url, archive.sha256 or "")
    file = staging / download.file_name
    if file.exists() and not sha256_of(file).startswith(download.sha256):
        raise DataError(
            f"{file} is not the file it should be: SHA-256 is {sha256_of(file)}, expected {download.sha256}\n"
            f"  Delete it and run the same command again"
        )
    if file.exists():
        return file
    try:
        download_file(download, file, lambda done, total: watch(download.file_name, done, total or archive.bytes))
    except DownloadError as error:
        digest = f" (SHA-256 {archive.sha256})" if archive.sha256 else ""
        raise DataError(
            f"cannot get {download.file_name}: {error}\n"
            f"  Run the same command again to continue, or fetch {archive.url}{digest}\n"
            f"  on another machine, put it at {file}\n"
            f"  and run the same command again"
        ) from error
    return file


def _check_room(known: KnownCollection, staging: Path) -> None:
    """Make sure that archives and contents fit on the disk side by side, as far as their sizes are known."""
    arrived = sum(file.stat().st_size for file in staging.iterdir() if file.is_file())
    needed = 2 * sum(archive.bytes or 0 for archive in known.archives) - arrived
    free = shutil.disk_usage(staging).free
    if needed > free:
        raise DataError(
            f"{known.title} needs about {needed:,} bytes, archives and contents side by side, but there is room for "
            f"{free:,} in {staging.parent}\n  Make room, or name a folder on another disk with --to"
        )


def _acceptance(known: KnownCollection) -> Path:
    return default_cache_directory() / "licences" / f"{known.name}.txt"


def _terms(known: KnownCollection) -> str:
    """What is accepted: words, or where they are to be read."""
    return f"{known.licence}\n{known.page}\n"
