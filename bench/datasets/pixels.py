"""From an image file to the pixels that its viewer sees.

An EXIF orientation is applied. Gray becomes RGB with three equal channels. Of an image with more than 8 bits per
channel the 8 highest bits in use are kept; how many bits are in use is a property of the whole scenario
(:mod:`bench.datasets.bit_depth`). A transparent image is its colours without the alpha channel: that is what detectors'
own code reads. Of a file with several frames or pages the first is read.
"""

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from bench.errors import DataError, UsageError

MAX_PIXELS_VARIABLE = "BENCH_MAX_PIXELS"
DEFAULT_MAX_PIXELS = 1_000_000_000
"""Of one image; a line-scan camera's 16384 × 48000 pixels are fewer, a decompression bomb's are more."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation: what makes the picture upright."""

# Pillow's own limit stops line-scan images; ours, below, applies to every image that is opened here.
Image.MAX_IMAGE_PIXELS = None

_Value = TypeVar("_Value")


class _Budget:
    """Lets threads decode at once as many pixels as memory bears, or one image of any size."""

    def __init__(self, pixels: int) -> None:
        self._free = self._whole = pixels
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Wait until ``pixels`` more may be decoded."""
        share = min(pixels, self._whole)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()


_DECODING = _Budget(200_000_000)


def read_image(path: Path, take: Callable[[Image.Image], _Value]) -> _Value:
    """Open an image and take something of it.

    Raises:
        DataError: The file is missing, damaged, of an unknown format, or has too many pixels.
        UsageError: The limit of pixels is no number.
    """
    limit = max_pixels()
    try:
        with Image.open(path) as image:
            count = image.width * image.height
            if count > limit:
                raise DataError(
                    f"{path} has {image.width} × {image.height} = {count} pixels, more than {limit}: if the file is "
                    f"what it should be, set {MAX_PIXELS_VARIABLE} to a larger number"
                )
            with _DECODING.take(count):
                return take(image)
    except FileNotFoundError as error:
        raise DataError(f"cannot read {path}: no such file") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError) as error:
        raise DataError(f"cannot read {path}: {error}. Restore the file or remove it from the scenario.") from error


def max_pixels() -> int:
    """How many pixels an image may have: ``$BENCH_MAX_PIXELS``, else a thousand million.

    Raises:
        UsageError: The variable is no positive whole number.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not text:
        return DEFAULT_MAX_PIXELS
    if not text.isdecimal() or int(text) == 0:
        raise UsageError(
            f"{MAX_PIXELS_VARIABLE} is {text!r}: expected a number of pixels, such as {DEFAULT_MAX_PIXELS}"
        )
    return int(text)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels of the upright picture, read from the file's header.

    Raises:
        DataError: The file is missing or not an image.
    """
    return read_image(path, size_of)


def size_of(image: Image.Image) -> tuple[int, int]:
    """Height and width of an opened image once it is upright."""
    lies = orientation(image) in (5, 6, 7, 8)
    return (image.width, image.height) if lies else (image.height, image.width)


def orientation(image: Image.Image) -> int:
    """EXIF orientation that is still to be applied, 1 to 8; 1 is upright.

    Pillow turns TIFF files by itself, and reports the size that they then have. In a PNG file, what follows the pixels
    is not looked at.
    """
    if image.format == "TIFF":
        return 1
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return value if value in _TURNS else 1


def upright(image: Image.Image, as_stored: Image.Image) -> Image.Image:
    """Turn an image made of ``as_stored`` as its viewer sees that."""
    turn = _TURNS.get(orientation(as_stored))
    return image if turn is None else image.transpose(turn)


def is_stored_deep(image: Image.Image) -> bool:
    """Whether a file, opened and not decoded yet, holds more than 8 bits per channel, gray or colour."""
    if is_deep(image):
        return True
    # BGR;16 are the 16 bits of a whole pixel
    modes = [str(tile[3]) for tile in image.tile] if isinstance(image, ImageFile) else []
    return any(";16" in mode and "BGR" not in mode for mode in modes)


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image is gray with more than 8 bits; of colours Pillow keeps the upper 8 of 16.

    Raises:
        ValueError: It has floating point or 32-bit values: which of them is white nobody can tell.
    """
    if image.mode in ("I", "F"):
        raise ValueError(f"unsupported pixel type {image.mode}, expected 8 or 16 bit integers")
    return image.mode.startswith("I;16")


def eight_bit(image: Image.Image, bits: int) -> Image.Image:
    """The picture, upright, with 8 bits per channel, gray or RGB.

    Args:
        image: An opened image.
        bits: How many bits are in use where a channel is stored with 16; larger values become white.

    Raises:
        ValueError: It has floating point or 32-bit values.
    """
    if is_deep(image):
        levels = np.minimum(np.asarray(image), 2**bits - 1) >> (bits - 8)
        return upright(Image.fromarray(levels.astype(np.uint8)), image)
    return upright(image if image.mode == "L" else image.convert("RGB"), image)


def is_transparent(image: Image.Image) -> bool:
    """Whether some pixel of an opened image is transparent; an alpha channel that is opaque throughout says nothing."""
    if not image.has_transparency_data:
        return False
    if is_deep(image):  # the one gray level that is transparent, not known to Pillow's conversion
        return bool((np.asarray(image) == image.info["transparency"]).any())
    return bool((np.asarray(image.convert("RGBA").getchannel("A")) < 255).any())


def has_frames(image: Image.Image) -> bool:
    """Whether an opened file holds several images (animations, TIFF files of several pages); the first is read."""
    return bool(getattr(image, "is_animated", False))
