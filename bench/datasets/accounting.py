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
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".tga"}
)
"""Of the raster images that Pillow reads."""

_JUNK = re.compile(
    r"\..*|__macosx|thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r?|@eadir"
    r"|(licen[cs]e|readme|read_me|copying|changelog)([ _.-].*)?|licen[cs]e.*\.(txt|md|pdf)|readme.*\.(txt|md|pdf|html)",
    re.IGNORECASE,
)
"""What operating systems leave behind, and what owners say about their data."""


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
    return not is_junk(path.name) and path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without junk; nothing if there is no such folder.

    Raises:
        DataError: It cannot be listed.
    """
    if not folder.is_dir():
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
        if file.is_symlink() and not file.exists():
            place = file.relative_to(folder).as_posix()
            walk.problems.append(f"{place} is a link to {file.readlink()}, which does not exist")
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
        if not entry.is_dir():
            yield entry
        elif os.path.normpath(entry) not in elsewhere:
            yield from _files(entry, elsewhere, (*above, identity), walk)


def _note(place: Path, names: list[str]) -> str:
    images = sum(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)
    what = "image" if images == len(names) else "file"
    where = "beside the folders" if place == Path() else f"in {place.as_posix()}"
    if len(names) == 1:
        return f"1 {what} {where} left out: {names[0]}"
    return f"{len(names)} {what}s {where} left out, such as {names[0]}"
