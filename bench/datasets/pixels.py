"""From an image file to the pixels that its viewer sees.

An EXIF orientation is applied, in a PNG file also one that follows the pixels, as ExifTool writes it. Gray becomes RGB
with three equal channels. Of an image with more than 8 bits per channel the 8 highest bits in use are kept; how many
bits are in use is a property of the whole scenario (:mod:`bench.datasets.bit_depth`). A transparent image is its
colours without the alpha channel: that is what detectors' own code reads, and so are colours as they are stored,
whatever their profile or gamma. Of a file with several frames or pages the first is read. A TIFF file of which Pillow
would make another picture than its tags say is refused.
"""

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

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

_LYING = (5, 6, 7, 8)
"""Orientations that exchange height and width."""

_GRAY_BITS = {"L;2": 2, "L;4": 4}
"""By Pillow's name of how gray of less than 8 bits is stored: how many these are."""

_REMEDY = "Restore the file or remove it from the scenario"

_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 262, 284, 338, 339
"""TIFF tags: what a sample is stored with and as, what its values mean, and whether each channel lies apart."""

_WHITE_IS_ZERO, _LAB = 0, 8
_APART = 2
_UNSIGNED = 1
_UNSPECIFIED = 0
"""Of a channel besides the colours: it is no transparency."""

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
            _prepare(image)
            with _DECODING.take(count):
                return take(image)
    except FileNotFoundError as error:
        raise DataError(f"cannot read {path}: no such file") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"cannot read {path}: it is damaged, no image, or has pixels of a kind that Pillow does not know. "
            f"{_REMEDY}, or save it as PNG of 8 or 16 bits."
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, MemoryError) as error:
        raise DataError(f"cannot read {path}: {error}. {_REMEDY}.") from error


def _prepare(image: Image.Image) -> None:
    """Make Pillow see, before it decodes, all that a file says of its pixels.

    Raises:
        ValueError: It would make another picture of them than the file says.
    """
    if isinstance(image, TiffImageFile):
        _refuse_misread(image)
        if image.tag_v2.get(ExifTags.Base.Orientation) in _LYING:
            image.filename = ""  # what has one is mapped into memory with height and width exchanged
        return
    if isinstance(image, PngImageFile):
        if "exif" not in image.info and image.fp and (entries := _exif_of_png(image.fp)):
            image.info["exif"] = b"Exif\0\0" + entries
        bits = _GRAY_BITS.get(str(image.tile[0][3])) if image.tile else None
        if bits and isinstance(image.info.get("transparency"), int):  # levels are stretched to 255, this is not
            image.info["transparency"] *= 255 // (2**bits - 1)
    Image.Image.getexif(image)  # is remembered: decoding may find more, when the size is already told


def _refuse_misread(image: TiffImageFile) -> None:
    """Refuse TIFF files that Pillow opens, and whose tags it does not obey."""
    tags = image.tag_v2
    if set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))) != {_UNSIGNED}:
        raise ValueError("its values have signs or fractions: save it with unsigned integers of 8 or 16 bits")
    if image.mode == "La":
        raise ValueError("its gray values are multiplied with their transparency: save it without")
    deep = max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8
    photometric = tags.get(_PHOTOMETRIC)
    if photometric is None or (photometric == _WHITE_IS_ZERO and deep):
        said = "is missing" if photometric is None else "says that low values are white, in more than 8 bits"
        raise ValueError(f"its tag PhotometricInterpretation {said}: save it as MinIsBlack")
    if tags.get(_PLANAR) == _APART and (photometric == _LAB or (deep and image.info["compression"] == "raw")):
        raise ValueError("its channels lie apart, which cannot be read of LAB and of 16 bits: save them interleaved")
    if ExifTags.Base.Orientation not in tags and Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) != 1:
        raise ValueError("it is turned by its XMP entry alone, not by its tag Orientation: save it upright")


def _exif_of_png(file: IO[bytes]) -> bytes:
    """The content of a PNG file's eXIf chunk, wherever it lies; empty without one. The file stays where it is."""
    before, place = file.tell(), 8
    content = b""
    file.seek(place)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"eXIf", b"IEND"):
            content = file.read(length)
            break
        place += 12 + length
        file.seek(place)
    file.seek(before)
    return content


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
    lies = orientation(image) in _LYING
    return (image.width, image.height) if lies else (image.height, image.width)


def orientation(image: Image.Image) -> int:
    """EXIF orientation that is still to be applied, 1 to 8; 1 is upright.

    Pillow turns TIFF files by itself, and reports the size that they then have.
    """
    if image.format == "TIFF":
        return 1
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return value if value in _TURNS else 1


def is_turned(image: Image.Image) -> bool:
    """Whether a file, opened and not decoded yet, has an orientation other than upright."""
    if isinstance(image, TiffImageFile):
        return image.tag_v2.get(ExifTags.Base.Orientation) in _TURNS
    return orientation(image) != 1


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
        kind = "floating point numbers" if image.mode == "F" else "integers of 32 bits"
        raise ValueError(f"it is read as {kind}: save it as PNG or TIFF with unsigned integers of 8 or 16 bits")
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


def has_more_channels(image: Image.Image) -> bool:
    """Whether an opened TIFF file has channels besides its colours and their transparency; these are not read."""
    return isinstance(image, TiffImageFile) and _UNSPECIFIED in image.tag_v2.get(_EXTRA_SAMPLES, ())
