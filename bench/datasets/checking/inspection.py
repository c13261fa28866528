"""What a file says of itself, and whether it is whole: at the speed of the disk where its format has checksums."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.ImageFile import ImageFile

from bench.datasets.cache import map_in_batches
from bench.datasets.pixels import is_deep, is_turned, read_image, size_of
from bench.errors import DataError


@dataclass(frozen=True)
class Inspected:
    """One image file.

    Attributes:
        path: Where it is.
        size: Height and width in pixels of the upright picture; ``None`` if it cannot be read.
        mode: Pillow's name of its pixels, such as ``L`` or ``RGB``.
        bits: Of each pixel and channel.
        turned: Whether its EXIF orientation is another than upright.
        error: Why it cannot be read; empty if it can.
    """

    path: Path
    size: tuple[int, int] | None = None
    mode: str = ""
    bits: int = 0
    turned: bool = False
    error: str = ""


def inspect_files(paths: Sequence[Path]) -> dict[Path, Inspected]:
    """Read each file to its end, on all cores.

    PNG files are compared with their checksums, JPEG files decoded at an eighth of their size, which reads all of
    their data, others decoded.
    """
    return dict(zip(paths, map_in_batches(_inspect, paths), strict=True))


def _inspect(path: Path) -> Inspected:
    try:
        return read_image(path, lambda image: _read_to_the_end(path, image))
    except DataError as error:
        return Inspected(path, error=str(error).removeprefix(f"cannot read {path}: ").partition(". Restore")[0])


def _read_to_the_end(path: Path, image: Image.Image) -> Inspected:
    inspected = Inspected(path, size_of(image), image.mode, _bits(image), is_turned(image))
    if image.format == "PNG":
        image.verify()
    else:
        image.draft("L", (1, 1))
        image.load()
    return inspected


def _bits(image: Image.Image) -> int:
    # RGB of 16 bits is opened as RGB of 8
    stored = str(image.tile[0][3]) if isinstance(image, ImageFile) and image.tile else ""
    return 16 if is_deep(image) or ";16" in stored else 8
