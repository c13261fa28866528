"""Test images that are training images: what a detector has seen is no test of it.

Two rules. *Identical*: the files are the same, byte for byte. *Nearly identical*: the image seen that is nearest to a
test image, by least squares at 64 × 64 pixels, differs from it nowhere by more than four gray levels of 255 there, and
has the same grain: what is left at 256 × 256 pixels without the means of 4 × 4 blocks, and without what other images
seen have in common there, correlates by more than 0.6. A picture saved again as JPEG or in another size is found so.
Another photograph of the same surface, or by the same fixed camera, is not: its noise is another. Neither are copies
so flat that saving them again leaves no grain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.datasets.cache import Cache
from bench.datasets.images import decode_images

SIDE = 64
TOLERANCE = 4
SAME_GRAIN = 0.6
"""Correlation: of copies of photographs 0.8 and more, in JPEG of quality 50, too; of others under 0.2, or under 0.55
where the noise of a single other image is all that is known of what images have in common."""

_FINE_SIDE = 256
_OTHERS = 32
"""Images, besides the one compared with, that tell what all have in common."""

_CHUNK = 512
"""Images compared at once: bounds the memory."""


@dataclass(frozen=True)
class Copies:
    """Test images that are copies of images a detector may be fitted or calibrated on.

    Attributes:
        identical: Places of those that are the same file.
        similar: Places of those that are nearly identical, and not the same file.
    """

    identical: tuple[int, ...]
    similar: tuple[int, ...]


def find_copies(test: Sequence[Path], seen: Sequence[Path], cache: Cache, bits: int | None) -> Copies:
    """Find the test images that are copies of images seen before.

    Args:
        test: The test images.
        seen: The training and validation images.
        cache: Where small versions of them are kept.
        bits: In use of 16, as for :func:`bench.datasets.images.decode_images`.

    Raises:
        DataError: A file is missing or damaged.
    """
    if not test or not seen:
        return Copies((), ())
    known = set(cache.digests(seen))
    identical = tuple(index for index, digest in enumerate(cache.digests(test)) if digest in known)
    others = [index for index in range(len(test)) if index not in set(identical)]
    if not others:
        return Copies(identical, ())
    thumbnails = _thumbnails([test[index] for index in others], SIDE, cache, bits)
    of_seen = _thumbnails(seen, SIDE, cache, bits)
    pairs = [
        (index, nearest)
        for index, thumbnail, nearest in zip(others, thumbnails, _nearest(thumbnails, of_seen), strict=True)
        if np.abs(thumbnail.astype(np.int16) - of_seen[nearest]).max() <= TOLERANCE
    ]
    return Copies(identical, tuple(_of_same_grain(pairs, test, seen, cache, bits)))


def _thumbnails(paths: Sequence[Path], side: int, cache: Cache, bits: int | None) -> NDArray[np.uint8]:
    """uint8 (n, 3 · side · side)."""
    return decode_images(paths, (side, side), cache, bits=bits).pixels.flatten(1).numpy()


def _nearest(test: NDArray[np.uint8], seen: NDArray[np.uint8]) -> NDArray[np.intp]:
    """(n,) place of the image seen with the least sum of squared differences from each test image."""
    nearest = np.zeros(len(test), np.intp)
    least = np.full(len(test), np.inf, np.float32)
    center = seen[:_CHUNK].mean(0, dtype=np.float32)  # small numbers keep their digits in the products
    for first in range(0, len(seen), _CHUNK):
        candidates = seen[first : first + _CHUNK] - center
        norms = np.square(candidates).sum(1)
        for start in range(0, len(test), _CHUNK):
            rows = slice(start, start + _CHUNK)
            # without the test image's own norm, which is the same for all candidates
            distances = norms - 2 * (test[rows] - center) @ candidates.T
            place, distance = distances.argmin(1), distances.min(1)
            nearest[rows] = np.where(distance < least[rows], first + place, nearest[rows])
            least[rows] = np.minimum(distance, least[rows])
    return nearest


def _of_same_grain(
    pairs: Sequence[tuple[int, int]], test: Sequence[Path], seen: Sequence[Path], cache: Cache, bits: int | None
) -> Iterator[int]:
    """Those test images of pairs that share with the image seen more than what all images seen have in common.

    Args:
        pairs: Places of a test image and of the image seen that is nearest to it.
        test: The test images.
        seen: The images seen.
        cache: Where small versions of the images seen are kept.
        bits: As for :func:`find_copies`.
    """
    if not pairs:
        return
    digests = cache.digests(seen)
    places = np.unique(np.linspace(0, len(seen) - 1, _OTHERS + 1).round().astype(int)).tolist()
    grains = _grains([seen[place] for place in places], cache, bits)
    uncached = replace(cache, enabled=False)
    for index, nearest in pairs:
        # a copy of the image compared with would take away what there is to compare
        others = [row for row, place in enumerate(places) if digests[place] != digests[nearest]]
        common = grains[others].mean(0) if others else 0
        first, second = _grains([test[index], seen[nearest]], uncached, bits) - common
        norms = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
        if float(first @ second) > SAME_GRAIN * norms:
            yield index


def _grains(paths: Sequence[Path], cache: Cache, bits: int | None) -> NDArray[np.float32]:
    """(n, 3 · 256 · 256) images without the means of blocks of 4 × 4 pixels."""
    images = _thumbnails(paths, _FINE_SIDE, cache, bits).reshape(len(paths), -1, 4, _FINE_SIDE // 4, 4)
    grains: NDArray[np.float32] = images - images.mean((2, 4), keepdims=True, dtype=np.float32)
    return grains.reshape(len(paths), -1)
