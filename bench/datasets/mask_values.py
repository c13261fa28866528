"""Which values a mask holds, and whether they look like labels or like a gray picture of black and white."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bench.datasets.pixels import is_deep, upright

FULL = 1 << 16
"""Stands for the largest value of a file's type, 255 or 65535, or for white."""
_COLOUR = 1 << 24
"""Added to 24-bit colours, so that none is taken for a gray value."""
_SHOWN = 8
_FEW = 8
"""Values but 0 up to which a mask looks like labels rather than like what JPEG makes of black and white."""


@dataclass(frozen=True, eq=False)
class Levels:
    """The pixels of a mask, upright.

    Attributes:
        values: (height, width) gray values, uint8 or uint16, or 24-bit colours, uint32; 0 where a pixel is transparent.
        colours: Whether they are colours.
    """

    values: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]
    colours: bool = False

    @property
    def nonzero(self) -> NDArray[np.bool_]:
        """The pixels that are not 0, or not black."""
        return np.not_equal(self.values, 0)

    @property
    def upper_half(self) -> NDArray[np.bool_]:
        """The pixels from half the range on; of a colour the strongest channel counts."""
        return np.asarray(self.brightness >= (self.white + 1) // 2)

    @property
    def white(self) -> int:
        """The largest value there can be."""
        return 255 if self.colours else int(np.iinfo(self.values.dtype).max)

    @property
    def brightness(self) -> NDArray[Any]:
        """Gray values; of a colour the strongest channel."""
        if not self.colours:
            return self.values
        channels = [(self.values >> shift) & 255 for shift in (16, 8, 0)]
        return np.asarray(np.max(channels, axis=0))


@dataclass(frozen=True)
class MaskValues:
    """What one mask holds.

    Attributes:
        marking: The values but 0: gray values, ``FULL``, and colours from 2**24 on.
        are_labels: They cannot be a gray picture of black and white: there are colours, something dark without
            anything bright, or a plain area of a middle gray.
    """

    marking: frozenset[int]
    are_labels: bool


def read_levels(image: Image.Image) -> Levels:
    """Take the values of an opened mask.

    Transparency is no mark: it counts only where the colours say nothing, being all alike. Elsewhere, what a
    transparent pixel hides does not count.

    Raises:
        ValueError: It has floating point or 32-bit values.
    """
    if is_deep(image):
        return Levels(np.asarray(upright(image, image)).astype(np.uint16))
    if image.mode in ("1", "L"):
        return Levels(np.asarray(upright(image.convert("L"), image)))
    if image.mode in ("RGB", "P", "CMYK", "YCbCr", "HSV", "LAB") and "transparency" not in image.info:
        return _gray_or_coloured(np.asarray(upright(image.convert("RGB"), image)))
    pixels = np.asarray(upright(image.convert("RGBA"), image))
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if (colours == colours[0, 0]).all() and alpha.min() < 255:
        return Levels(alpha)
    return _gray_or_coloured(np.where(alpha[..., None] > 0, colours, np.uint8(0)))


def values_of(levels: Levels) -> MaskValues:
    """Find out what a mask holds."""
    distinct = [int(value) for value in np.unique(levels.values) if value]
    if levels.colours:
        white = 0xFFFFFF
        return MaskValues(frozenset(FULL if value == white else _COLOUR | value for value in distinct), True)
    marking = frozenset(FULL if value == levels.white else value for value in distinct)
    if not distinct or distinct == [levels.white]:
        return MaskValues(marking, False)
    dark = distinct[-1] < (levels.white + 1) // 2
    return MaskValues(marking, dark or _has_plain_gray(levels, few=len(distinct) <= _FEW))


def listed_values(values: Collection[int]) -> str:
    """Values for a message: ``1, 2, 255`` or ``#ff0000``."""
    shown = [_value(value) for value in sorted(values)[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")


def _value(value: int) -> str:
    return "white" if value == FULL else f"#{value - _COLOUR:06x}" if value >= _COLOUR else str(value)


def _has_plain_gray(levels: Levels, *, few: bool) -> bool:
    """Whether there is a pixel of gray whose eight neighbours have the same value.

    Edges that are soft, or blurred by JPEG, have none. JPEG's plain blocks are nearly black or nearly white, and of
    many values; where there are few, as class numbers beside 255, any gray counts.
    """
    values, margin = levels.values, 0 if few else levels.white // 8
    middle = (values > margin) & (values < levels.white - margin)
    if not middle.any():
        return False
    plain = ndimage.maximum_filter(values, 3) == ndimage.minimum_filter(values, 3)
    return bool((plain & middle).any())


def _gray_or_coloured(pixels: NDArray[np.uint8]) -> Levels:
    if (pixels == pixels[..., :1]).all():
        return Levels(np.ascontiguousarray(pixels[..., 0]))
    red, green, blue = (pixels[..., channel].astype(np.uint32) for channel in range(3))
    return Levels((red * 2**16 + green * 2**8 + blue).astype(np.uint32), colours=True)
