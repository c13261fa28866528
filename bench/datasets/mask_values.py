"""Which values a mask holds, and whether they look like labels or like a gray picture of black and white."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bench.datasets.pixels import has_frames, has_more_channels, is_deep, is_stored_deep, is_turned, upright

FULL = 1 << 16
"""Stands for the largest value of a file's type, 255 or 65535, or for white."""
_COLOUR = 1 << 24
"""Added to 24-bit colours, so that none is taken for a gray value."""
_SHOWN = 8
_KEPT = 256
"""Values remembered of one mask; a photograph in its place has more than memory bears."""
_FEW = 8
"""Values but 0 up to which a mask looks like labels rather than like what JPEG makes of black and white."""
_PART = 6
"""Pixels from which on a part of one gray, with black all around, is no soft edge."""
_LOSSY = frozenset({"JPEG", "MPO"})
"""Formats that put other values than were given around every edge."""


@dataclass(frozen=True, eq=False)
class Levels:
    """The pixels of a mask, upright.

    Attributes:
        values: (height, width) gray values, uint8 or uint16, or 24-bit colours, uint32; 0 where a pixel is transparent.
        colours: Whether they are colours.
        lossy: Whether the file's format changes values near edges, as JPEG does.
        turned: Whether they were turned as EXIF says.
    """

    values: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]
    colours: bool = False
    lossy: bool = False
    turned: bool = False

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
        marking: The values but 0, the largest among them, not more than some hundreds: gray values, ``FULL``, and
            colours from 2**24 on.
        are_labels: They cannot be a gray picture of black and white: there are colours, something dark without
            anything bright, or a plain area of a middle gray.
        nonzero: The share of pixels that are not 0.
        upper_half: The share of pixels from half the range on.
        turned: Whether the mask was turned as EXIF says.
    """

    marking: frozenset[int]
    are_labels: bool
    nonzero: float
    upper_half: float
    turned: bool = False

    @property
    def soft(self) -> bool:
        """There are values between black and white."""
        return bool(self.marking - {FULL})


def read_levels(image: Image.Image) -> Levels:
    """Take the values of a mask that is opened and not decoded yet.

    Transparency is no mark: it counts only where the colours say nothing, being all alike. Elsewhere, what a
    transparent pixel hides does not count.

    Raises:
        ValueError: It has floating point or 32-bit values, colours of 16 bits per channel, several pages, or channels
            besides its colours.
    """
    if has_frames(image):
        raise ValueError("it has several pages, and nothing says which of them marks the defects: save that one alone")
    if has_more_channels(image):
        raise ValueError(
            "it has channels besides its colours, and nothing says which marks the defects: save that alone"
        )
    if is_stored_deep(image) and not is_deep(image):
        raise ValueError("of 16 bits per colour channel only 8 can be read: save it gray, or with 8 bits")
    turned = is_turned(image)
    values = _values(image)
    if values.ndim == 3:
        values, colours = _gray_or_coloured(values)
    else:
        colours = False
    return Levels(values, colours=colours, lossy=image.format in _LOSSY, turned=turned)


def values_of(levels: Levels) -> MaskValues:
    """Find out what a mask holds."""
    distinct = [int(value) for value in np.unique(levels.values) if value]
    kept = distinct if len(distinct) <= _KEPT else [*distinct[: _KEPT - 1], distinct[-1]]
    white = 0xFFFFFF if levels.colours else levels.white
    marking = frozenset(FULL if value == white else value | _COLOUR * levels.colours for value in kept)
    return MaskValues(
        marking=marking,
        are_labels=levels.colours or _are_labels(levels, distinct),
        nonzero=float(levels.nonzero.mean()),
        upper_half=float(levels.upper_half.mean()),
        turned=levels.turned,
    )


def listed_values(values: Collection[int]) -> str:
    """Values for a message: ``1, 2, 255`` or ``#ff0000``."""
    shown = [_value(value) for value in sorted(values)[:_SHOWN]]
    return ", ".join(shown) + (" and more" if len(values) > _SHOWN else "")


def _value(value: int) -> str:
    return "white" if value == FULL else f"#{value - _COLOUR:06x}" if value >= _COLOUR else str(value)


def _are_labels(levels: Levels, distinct: list[int]) -> bool:
    """Whether gray values, ``distinct`` but for 0, cannot be a gray picture of black and white."""
    if not distinct or distinct == [levels.white]:
        return False
    few = len(distinct) <= _FEW and not levels.lossy
    margin = 0 if few else levels.white // 8
    if distinct[-1] < (levels.white + 1) // 2:
        # what JPEG makes of a black picture is nearly black
        return not (levels.lossy and distinct[-1] <= margin)
    middle = (levels.values > margin) & (levels.values < levels.white - margin)
    if not middle.any():
        return False
    peaks = middle & (ndimage.maximum_filter(levels.values, 3) == levels.values)
    return _has_plain_gray(levels.values, peaks) or (not levels.lossy and _has_gray_part(levels.values, peaks))


def _has_plain_gray(values: NDArray[Any], peaks: NDArray[np.bool_]) -> bool:
    """Whether there is a pixel of gray whose eight neighbours have the same value.

    Edges that are soft, or blurred by JPEG, have none. JPEG's plain blocks are nearly black or nearly white, and of
    many values; where there are few, as class numbers beside 255, any gray counts.

    Args:
        values: Gray values (height, width).
        peaks: The gray pixels without a brighter neighbour.
    """
    return bool(peaks.any() and (peaks & (ndimage.minimum_filter(values, 3) == values)).any())


def _has_gray_part(values: NDArray[Any], peaks: NDArray[np.bool_]) -> bool:
    """Whether there is a part of one gray throughout, with black all around: a label too thin for a plain pixel.

    Arguments are those of :func:`_has_plain_gray`.
    """
    if np.count_nonzero(peaks) < _PART:
        return False
    parts, count = ndimage.label(values, np.ones((3, 3)))
    areas, grays = (np.bincount(parts[pixels], minlength=count + 1) for pixels in (parts > 0, peaks))
    # without a brighter neighbour, all pixels of a part have one value
    return bool(np.any((areas >= _PART) & (areas == grays)))


def _values(image: Image.Image) -> NDArray[Any]:
    """The upright pixels of a mask: (height, width) gray values or alpha, or (height, width, 3) colours."""
    if is_deep(image):
        return _without_hidden(np.asarray(upright(image, image)).astype(np.uint16), image)
    if image.mode in ("1", "L"):
        return _without_hidden(np.array(upright(image.convert("L"), image)), image)
    if not image.has_transparency_data:
        return np.asarray(upright(image.convert("RGB"), image))
    pixels = np.asarray(upright(image.convert("RGBA"), image))
    colours, alpha = pixels[..., :3], pixels[..., 3]
    if alpha.min() < alpha.max() and (colours == colours[0, 0]).all():
        return alpha
    return np.where(alpha[..., None] > 0, colours, np.uint8(0))


def _without_hidden(values: NDArray[Any], image: Image.Image) -> NDArray[Any]:
    """Gray values, changed in place: 0 for the one level that a file calls transparent, if it does."""
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        values[values == (255 if hidden and image.mode == "1" else hidden)] = 0
    return values


def _gray_or_coloured(pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], bool]:
    """Gray values if all channels are equal, else 24-bit colours; and whether they are colours."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    if (red == green).all() and (green == blue).all():
        return np.ascontiguousarray(red), False
    values = red.astype(np.uint32)
    for channel in (green, blue):
        values <<= 8
        values |= channel
    return values, True
