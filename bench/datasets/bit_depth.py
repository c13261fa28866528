"""How many bits the images of a scenario use, where files store 16 for what a camera measures with 10, 12 or 14.

Read with the wrong number, a 12-bit image is 16 times too dark, and 16 gray levels are left of it. The number is the
same for all images of a scenario. It is what the files say of themselves, unless training images hold larger values:
those of a PNG file with an sBIT chunk may have been scaled to the whole range, as its standard wants. If files say
nothing that holds, it is the smallest usual number that holds every value of the training images. Values of test images
are only asked for where there are no training images.
"""

import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from bench.datasets.cache import usable_cores
from bench.datasets.pixels import is_deep, is_stored_deep, read_image
from bench.datasets.scenario import Scenario
from bench.errors import DataError

_VERSION = 3
"""Of the rule; what was found by another is found again."""

USUAL = (8, 10, 12, 14, 16)

_Value = TypeVar("_Value")

_DEEP_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jp2"})
"""Of the files that may have more than 8 bits."""

_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE = 258, 281
"""TIFF tags: how many bits a sample is stored with (12 where they are packed), and the largest value it can have."""


def bit_depth(scenario: Scenario) -> int | None:
    """Bits per channel in use where a scenario's images are stored with 16; ``None`` where they have 8.

    Remembered in the scenario's cache under its identity.

    Raises:
        DataError: Some images have 8 bits and others 16, the files disagree on how many bits they use, or a file cannot
            be read.
    """
    if not any(path.suffix.lower() in _DEEP_SUFFIXES for path in _images(scenario)):
        return None
    return scenario.cache.remembered("depths", f"{scenario.identity}-{_VERSION}", lambda: _find(scenario))


def _find(scenario: Scenario) -> int | None:
    normal = [*scenario.train, *scenario.validation]
    images = _images(scenario)
    deep = _each(images, lambda path: read_image(path, is_stored_deep))
    if not any(deep):
        return None
    if not all(deep):
        shallow, example = images[deep.index(False)], images[deep.index(True)]
        raise DataError(
            f"scenario {scenario.id} mixes images of 8 and of 16 bits, such as {shallow} and {example}: how bright "
            "they are in relation to each other nobody can tell; store all of them alike"
        )
    tagged = {bits for bits in _each(images, _tagged) if bits is not None}
    if len(tagged) > 1:
        raise DataError(
            f"the images of scenario {scenario.id} say that they use {' and '.join(map(str, sorted(tagged)))} bits per "
            "channel: store all of them alike"
        )
    highest = max(_each(normal or images, lambda path: read_image(path, _highest)))
    bits = next(bits for bits in (*tagged, *USUAL) if highest < 2**bits)
    if bits < 16 and not all(_each(images, lambda path: read_image(path, is_deep))):
        raise DataError(
            f"the images of scenario {scenario.id} are coloured and use {bits} of 16 bits per channel, of which "
            "reading keeps the upper 8: scale them to the full range, or store them with 8 bits"
        )
    return bits


def count_brighter(paths: Sequence[Path], bits: int) -> int:
    """How many images of 16 bits hold values that do not fit into the bits in use, and are read as white.

    Raises:
        DataError: A file cannot be read.
    """
    return sum(highest >= 2**bits for highest in _each(paths, lambda path: read_image(path, _highest)))


def _images(scenario: Scenario) -> list[Path]:
    return [*scenario.train, *scenario.validation, *(image.path for image in (*scenario.test, *scenario.unlabelled))]


def _each(paths: Sequence[Path], ask: Callable[[Path], _Value]) -> list[_Value]:
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(ask, paths))


def _highest(image: Image.Image) -> int:
    colours = image.convert("RGB") if image.mode == "RGBA" else image  # what is opaque has the largest value there is
    highest = int(np.asarray(colours).max())
    return highest if is_deep(image) else 256 * highest + 255


def _tagged(path: Path) -> int | None:
    """How many bits a file says it uses of 16; ``None`` if it does not say, or says 16."""
    kind, highest = read_image(path, lambda image: (image.format, _largest_value(image)))
    if kind == "PNG":
        return _significant_bits(path)
    return highest.bit_length() if 0 < highest < 2**16 - 1 else None


def _largest_value(image: Image.Image) -> int:
    """The largest value that a TIFF file says its samples can have; 0 if it does not say."""
    if not isinstance(image, TiffImageFile):
        return 0
    stored = max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    values = image.tag_v2.get(_MAX_SAMPLE_VALUE, 2**stored - 1)
    return int(max(values) if isinstance(values, tuple) else values)


def _significant_bits(path: Path) -> int | None:
    """The largest number in a PNG file's sBIT chunk, which precedes the pixels; ``None`` without one, or for 16."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT":
                bits = max(file.read(length), default=16)
                return bits if 8 <= bits < 16 else None
            if kind in (b"IDAT", b"PLTE"):
                return None
            file.seek(length + 4, 1)
    return None
