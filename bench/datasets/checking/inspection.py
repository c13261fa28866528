"""What a file says of itself, and whether it is whole: at the speed of the disk where its format has checksums."""

import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.ImageFile import ImageFile

from bench.datasets.cache import usable_cores


@dataclass(frozen=True)
class Inspected:
    """One image file.

    Attributes:
        path: Where it is.
        size: Height and width in pixels as stored; ``None`` if it cannot be read.
        mode: Pillow's name of its pixels, such as ``L`` or ``RGB``.
        bits: Of each pixel and channel.
        error: Why it cannot be read; empty if it can.
    """

    path: Path
    size: tuple[int, int] | None = None
    mode: str = ""
    bits: int = 0
    error: str = ""


def inspect_files(paths: Sequence[Path]) -> dict[Path, Inspected]:
    """Read each file to its end, on all cores.

    PNG files are compared with their checksums, JPEG files decoded at an eighth of their size, which reads all of
    their data, others decoded.
    """
    with ThreadPoolExecutor(usable_cores()) as pool:
        return dict(zip(paths, pool.map(_inspect, paths), strict=True))


def _inspect(path: Path) -> Inspected:
    try:
        with Image.open(path) as image:
            size, mode = (image.height, image.width), image.mode
            bits = _bits(image)
            if image.format == "PNG":
                image.verify()
            else:
                image.draft("L", (1, 1))
                image.load()
    except FileNotFoundError:
        return Inspected(path, error="a dangling link" if path.is_symlink() else "no such file")
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        return Inspected(path, error=getattr(error, "strerror", None) or str(error).removesuffix(f" {str(path)!r}"))
    return Inspected(path, size, mode, bits)


def _bits(image: Image.Image) -> int:
    if image.mode == "1":
        return 1
    if image.mode == "F":
        return 32
    # RGB of 16 bits is opened as RGB of 8
    stored = str(image.tile[0][3]) if isinstance(image, ImageFile) and image.tile else ""
    return 16 if image.mode.startswith("I") or ";16" in stored else 8
