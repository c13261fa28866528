"""Test images that are training images: what a detector has seen is no test of it.

Two rules. *Identical*: the files are the same, byte for byte. *Nearly identical*: both images, resized to 64 × 64
pixels, differ nowhere by more than two gray levels of 255. A picture saved again, in another format or size, is found
so; another picture of the same kind of part is not, unless nothing in it but noise has changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.datasets.cache import Cache
from bench.datasets.images import decode_images

SIDE = 64
TOLERANCE = 2
_CHUNK = 256


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
    small = _thumbnails([test[index] for index in others], cache, bits)
    similar = _are_near(small, _thumbnails(seen, cache, bits))
    return Copies(identical, tuple(np.array(others)[similar].tolist()))


def _thumbnails(paths: Sequence[Path], cache: Cache, bits: int | None) -> NDArray[np.uint8]:
    """uint8 (n, 3 · 64 · 64)."""
    return decode_images(paths, (SIDE, SIDE), cache, bits=bits).pixels.flatten(1).numpy()


def _are_near(test: NDArray[np.uint8], seen: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(n,) whether any of the images seen is near each test image everywhere."""
    near = np.zeros(len(test), np.bool_)
    # Images that are near everywhere have near means: few pairs remain to be compared.
    means, order = test.mean(1), np.argsort(seen.mean(1), kind="stable")
    sorted_means = seen.mean(1)[order]
    for index, (image, mean) in enumerate(zip(test, means, strict=True)):
        start, stop = np.searchsorted(sorted_means, (mean - TOLERANCE, mean + TOLERANCE))
        for first in range(start, stop, _CHUNK):
            candidates = seen[order[first : min(first + _CHUNK, stop)]].astype(np.int16)
            if (np.abs(candidates - image.astype(np.int16)).max(1) <= TOLERANCE).any():
                near[index] = True
                break
    return near
