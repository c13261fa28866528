"""Archives of strangers, unpacked: nothing outside of their folder, nothing but files, no more than fits."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from bench.errors import DataError
from methods.download import Progress

_MOST_GROWTH = 200
"""Contents may have so many times the archive's size: images hardly shrink, masks of one value up to a hundredfold."""

_GROWS_UNSEEN = 2**28
"""Bytes that any archive may unpack to."""

_LONGEST_PATH = 4096
_MOST_LINKS = 20
_CHUNK = 2**20
_DAMAGES = (zipfile.BadZipFile, BadGzipFile, tarfile.TarError, zlib.error, LZMAError, EOFError, NotImplementedError)


@dataclass(frozen=True)
class _Member:
    """One entry of an archive.

    Attributes:
        size: Bytes of its content as the archive declares them.
        opened: Opens the content.
        link: What it points to, relative to the archive's root, if it is a link.
    """

    size: int
    opened: Callable[[], AbstractContextManager[IO[bytes]]]
    link: str | None = None


_Members = Mapping[str, _Member]
"""By normalised name."""


def unpack(archive: Path, folder: Path, inside: str = "", progress: Progress | None = None) -> None:
    """Unpack a ZIP or TAR archive, compressed by whatever method, into a folder.

    All names are looked at before anything is written. Every file gets the permissions of a new one. A link becomes a
    copy of the file in the archive that it points to.

    Args:
        archive: Of any name: its content says what it is.
        folder: Made if it does not exist; what is in it may be overwritten.
        inside: The folder in the archive whose content is wanted; everything when empty.
        progress: Called after each piece.

    Raises:
        DataError: It is no archive, or damaged; a name is absolute or has ``..`` in it; an entry is a device or a link
            to something else than a file of the archive; the content has a size that no images have, or that the disk
            has no room for; or there is nothing ``inside``.
    """
    try:
        with _opened(archive) as members:
            wanted = _wanted(archive, members, inside)
            total = sum(member.size for member in wanted.values())
            _check_size(archive, total, folder)
            done = 0
            for name, member in wanted.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.opened() as source, target.open("wb") as file:
                    while chunk := source.read(_CHUNK):
                        file.write(chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress(done, total)
    except _DAMAGES as error:
        raise DataError(f"{archive} cannot be read ({error}): delete it and get it again") from error
    except OSError as error:
        raise DataError(f"cannot unpack {archive} into {folder}: {error.strerror or error}") from error


@contextmanager
def _opened(archive: Path) -> Iterator[_Members]:
    """The files of an archive; folders need no entry of their own."""
    if _beginning(archive).startswith(b"PK"):
        with zipfile.ZipFile(archive) as opened:
            yield _zip_members(archive, opened)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as opened:
            yield _tar_members(archive, opened)
            while opened.fileobj is not None and opened.fileobj.read(_CHUNK):  # up to the checksum of its compression
                pass
    else:
        raise DataError(f"{archive} is neither a ZIP nor a TAR archive: it begins with {_beginning(archive)!r}")


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> dict[str, _Member]:
    members = {}
    for info in opened.infolist():
        if info.is_dir():
            _normalised(archive, info.filename)
            continue
        if info.flag_bits & 1:
            raise DataError(f"{archive} is encrypted: unpack it by hand")
        name, link = _normalised(archive, info.filename), None
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind == stat.S_IFLNK and info.file_size <= _LONGEST_PATH:
            link = str(PurePosixPath(name).parent / opened.read(info).decode(errors="replace"))
        elif kind not in (0, stat.S_IFREG):
            raise _refused(archive, info.filename, "neither a file nor a folder")
        members[name] = _Member(info.file_size, lambda info=info: opened.open(info), link)  # type: ignore[misc]
    return members


def _tar_members(archive: Path, opened: tarfile.TarFile) -> dict[str, _Member]:
    members = {}
    for info in opened:
        name, link = _normalised(archive, info.name), None
        if info.isdir():
            continue
        if info.issym():
            link = str(PurePosixPath(name).parent / info.linkname)
        elif info.islnk():
            link = info.linkname
        elif not info.isfile():
            raise _refused(archive, info.name, "neither a file nor a folder")

        def content(info: tarfile.TarInfo = info) -> IO[bytes]:
            file = opened.extractfile(info)
            if file is None:
                raise tarfile.ReadError(f"{info.name} has no content")
            return file

        members[name] = _Member(info.size, content, link)
    return members


def _normalised(archive: Path, name: str) -> str:
    """The name with single slashes and without dots.

    Raises:
        DataError: It leads out of the folder that the archive is unpacked into, on any system.
    """
    windows = PureWindowsPath(name)
    if ".." in windows.parts or windows.anchor:
        raise _refused(archive, name, "a name that leads out of the folder")
    return PurePosixPath(name).as_posix()


def _refused(archive: Path, name: str, what: str) -> DataError:
    return DataError(f"{archive} holds {name!r}, {what}: nothing was unpacked, do not trust this archive")


def _wanted(archive: Path, members: _Members, inside: str) -> _Members:
    """The files in the folder ``inside``, by their names relative to it, each with content of its own."""
    wanted = {}
    for name, member in members.items():
        pointed_to = _pointed_to(archive, name, member, members)
        if PurePosixPath(name).is_relative_to(inside):
            wanted[PurePosixPath(name).relative_to(inside).as_posix()] = pointed_to
    if not wanted:
        where = f" in its folder {inside}" if inside else ""
        raise DataError(f"{archive} holds no files{where}: its names are {', '.join(list(members)[:3]) or 'none'}")
    return wanted


def _pointed_to(archive: Path, name: str, member: _Member, members: _Members) -> _Member:
    for _ in range(_MOST_LINKS):
        if member.link is None:
            return member
        followed = _without_dots(member.link)
        if followed is None or followed not in members:
            raise _refused(archive, name, f"a link to {member.link!r}, which is no file of the archive")
        member = members[followed]
    raise _refused(archive, name, "a link that leads round in a circle")


def _without_dots(path: str) -> str | None:
    """Resolve ``..`` in a path from the archive's root; ``None`` if it leads out."""
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part == "/" or (part == ".." and not parts):
            return None
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _check_size(archive: Path, total: int, folder: Path) -> None:
    size = archive.stat().st_size
    if total > max(_GROWS_UNSEEN, _MOST_GROWTH * size):
        raise DataError(
            f"{archive} has {size:,} bytes and would unpack to {total:,}, more than {_MOST_GROWTH} times as many: "
            f"nothing was unpacked, do not trust this archive"
        )
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if total > free:
        raise DataError(f"{archive} unpacks to {total:,} bytes, but there is room for {free:,} in {existing}")


def _beginning(archive: Path) -> bytes:
    with archive.open("rb") as file:
        return file.read(16)
