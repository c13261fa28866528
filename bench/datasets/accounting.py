"""What becomes of every file in a scenario's folder: used, known to be of no use, or named."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from bench.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif", ".avif"}
    | {".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".sgi", ".qoi"}
)
"""Of the raster images that Pillow reads; not of its vector graphics, icons, films and arrays."""

_ENDINGS = tuple(IMAGE_SUFFIXES)

_JUNK = re.compile(
    r"\..*|__macosx|thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r|@eadir"
    r"|licen[cs]e|read[ _-]?me|copying|changelog"
    r"|(licen[cs]e|read[ _-]?me|copying|changelog).*\.(txt|md|rst|rtf|pdf|html?|docx?)",
    re.IGNORECASE,
)
"""What operating systems leave behind, and what owners say about their data; no image, such as license_plate.png."""

_DEPTH = 4
"""How many folders below a folder are looked into for an image."""

_LOOKED_AT = 20_000
"""After so many names without an image among them, a folder counts as holding none: there is no end to some folders."""


@dataclass(frozen=True)
class Account:
    """What became of the files that a scenario does not use.

    Attributes:
        notes: One sentence per folder with files left out, with their number and an example.
        problems: Files that must be mended before the scenario can be used: links to nothing, folders that cannot be
            listed.
    """

    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass
class _Walk:
    left_out: dict[Path, list[str]] = field(default_factory=lambda: defaultdict(list))
    problems: list[str] = field(default_factory=list)


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is never data: hidden, left by an archive, a licence, a read-me file."""
    return _JUNK.fullmatch(name) is not None


def is_image(path: Path) -> bool:
    """Whether a name is that of an image; a link to nothing is one too, so that it is missed and not passed over."""
    return _named_as_image(path.name) and not is_folder(path)


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link to one, as far as may be looked."""
    try:
        return path.is_dir()
    except OSError:  # as of Python 3.14 is_dir says no by itself, and is_file too
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file, or a link to one, as far as may be looked."""
    try:
        return path.is_file()
    except OSError:
        return False


def unreachable(path: Path) -> str | None:
    """Why an entry of a folder leads nowhere, as a phrase to follow its name; ``None`` if it can be reached."""
    try:
        path.stat()
    except FileNotFoundError:
        return f"is a link to {path.readlink()}, which does not exist"
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"
    return None


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without junk; nothing if there is no such folder.

    Raises:
        DataError: It cannot be listed.
    """
    if not is_folder(folder):
        return []
    try:
        # by the names: comparing whole paths takes longer than listing them
        return sorted((entry for entry in folder.iterdir() if not is_junk(entry.name)), key=attrgetter("name"))
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from error


def images_in(folder: Path) -> tuple[Path, ...]:
    """The images that lie in a folder itself, by name.

    Raises:
        DataError: The folder cannot be listed.
    """
    return tuple(entry for entry in entries(folder) if is_image(entry))


def first_image(folder: Path) -> Path | None:
    """An image in a folder or those below it, as far as may be looked; ``None`` where there is none, or not near."""
    looked_at = 0
    for place, folders, names in os.walk(folder, followlinks=True):
        images = [name for name in names if _named_as_image(name)]
        if images:
            return Path(place, min(images))
        looked_at += len(folders) + len(names)
        if looked_at > _LOOKED_AT:
            return None
        within_reach = len(Path(place).relative_to(folder).parts) < _DEPTH
        folders[:] = sorted(name for name in folders if not is_junk(name)) if within_reach else []
    return None


def account_for(folder: Path, used: Collection[Path], *, elsewhere: Collection[Path] = ()) -> Account:
    """Walk a scenario's folder and name every file that is neither used nor junk.

    Args:
        folder: Of the scenario.
        used: Files that the scenario uses, or that its reader has spoken of, as paths below ``folder``.
        elsewhere: Folders below ``folder`` that are not the scenario's: another one's.
    """
    walk = _Walk()
    spoken = {os.path.normpath(path) for path in used}
    for file in _files(folder, frozenset(map(os.path.normpath, elsewhere)), (), walk):
        why = unreachable(file)
        if why is not None:
            walk.problems.append(f"{file.relative_to(folder).as_posix()} {why}")
        elif os.path.normpath(file) not in spoken:
            walk.left_out[file.parent].append(file.name)
    notes = [_note(place.relative_to(folder), names) for place, names in sorted(walk.left_out.items())]
    return Account(tuple(notes), tuple(walk.problems))


def _files(folder: Path, elsewhere: frozenset[str], above: tuple[tuple[int, int], ...], walk: _Walk) -> Iterator[Path]:
    """Every file below a folder, links followed, those that lead back to a folder above named."""
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        found = entries(folder)
    except (OSError, DataError) as error:
        walk.problems.append(str(error) if isinstance(error, DataError) else f"cannot list {folder}: {error.strerror}")
        return
    if identity in above:
        walk.problems.append(f"{folder} is a link to a folder that contains it")
        return
    for entry in found:
        if not is_folder(entry):
            yield entry
        elif os.path.normpath(entry) not in elsewhere:
            yield from _files(entry, elsewhere, (*above, identity), walk)


def _named_as_image(name: str) -> bool:
    return name.lower().endswith(_ENDINGS) and not is_junk(name)


def _note(place: Path, names: list[str]) -> str:
    images = sum(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)
    what = "image" if images == len(names) else "file"
    where = "beside the folders" if place == Path() else f"in {place.as_posix()}"
    if len(names) == 1:
        return f"1 {what} {where} left out: {names[0]}"
    return f"{len(names)} {what}s {where} left out, such as {names[0]}"
