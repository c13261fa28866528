"""Decoding: images to tensors, once per set and size; what a pixel is, :mod:`bench.datasets.pixels` says."""

import hashlib
import json
import logging
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import PIL
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from bench.datasets.cache import Cache, replace_atomically, usable_cores
from bench.datasets.pixels import eight_bit, read_image, size_of
from bench.errors import DataError

_log = logging.getLogger(__name__)

_CHUNK = 64
"""Images decoded ahead of the one being written: bounds the memory."""

_Decoded = Iterator[tuple[NDArray[np.uint8], tuple[int, int]]]
"""Pixels (3, H, W) and original height and width, image by image."""


@dataclass(frozen=True)
class DecodedImages:
    """A set of images at one size.

    Attributes:
        pixels: uint8 tensor (N, 3, H, W), values 0-255, RGB. It may be a private view of a file: writing to it
            changes nothing but this tensor, and no path can be reached from it.
        sizes: Height and width in pixels of each image on disk, upright.
    """

    pixels: torch.Tensor
    sizes: tuple[tuple[int, int], ...]


def decode_images(
    paths: Sequence[Path],
    size: tuple[int, int],
    cache: Cache,
    *,
    bits: int | None = None,
    center_crop: tuple[int, int] | None = None,
) -> DecodedImages:
    """Decode images and resize each, as a whole, to one size: bilinear and antialiased, aspect ratio not kept.

    The result is kept in the cache under the digest of everything it depends on, so methods, seeds and processes
    share one decoding. A broken entry is made again. Where the cache cannot be written, the images are decoded into
    memory and a warning is logged.

    Args:
        paths: Image files in any format that Pillow reads, gray or RGB, 8 or 16 bits per channel.
        size: Height and width in pixels.
        cache: Where decoded images are kept.
        bits: How many bits are in use where a channel is stored with 16; all of them when ``None``.
        center_crop: Height and width kept of the centre after resizing; everything when ``None``.

    Raises:
        DataError: There are no images, or one is missing, truncated or of an unknown format; names the file.
    """
    if not paths:
        raise DataError("there are no images to decode")
    shape = (len(paths), 3, *(center_crop or size))
    bits = bits or 16
    decoded = partial(_decoded, paths, size, bits, center_crop)
    if not cache.enabled:
        return _in_memory(decoded(), shape)
    entry = _entry(paths, size, cache, bits, center_crop)
    found = _load(entry, shape)
    if found is not None:
        return found
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(entry.with_suffix(".lock")):
            found = _load(entry, shape)  # another process may have made it meanwhile
            if found is None:
                _save(entry, shape, decoded())
                found = _load(entry, shape)
        if found is not None:
            return found
        _log.warning("the decoded images written to %s cannot be read back; continuing in memory", entry.parent)
    except OSError as error:
        _log.warning("cannot write decoded images to %s (%s); continuing in memory", entry.parent, error)
    return _in_memory(decoded(), shape)


def decoded_bytes(count: int, size: tuple[int, int]) -> int:
    """What so many decoded images take, in memory and in the cache."""
    return 3 * count * size[0] * size[1]


def is_decoded(paths: Sequence[Path], size: tuple[int, int], cache: Cache, *, bits: int | None = None) -> bool:
    """Whether the cache holds what :func:`decode_images` would return.

    Raises:
        DataError: A file cannot be read.
    """
    return cache.enabled and _entry(paths, size, cache, bits or 16, None).with_suffix(".json").exists()


def _entry(
    paths: Sequence[Path], size: tuple[int, int], cache: Cache, bits: int, center_crop: tuple[int, int] | None
) -> Path:
    """The file of some images in the cache, named by everything that they depend on."""
    recipe = [3, PIL.__version__, size, bits, center_crop, cache.digests(paths)]
    return cache.directory / "decoded" / hashlib.sha256(json.dumps(recipe).encode()).hexdigest()


def _decode(
    path: Path, size: tuple[int, int], bits: int, crop: tuple[int, int] | None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    def resized(image: Image.Image) -> tuple[Image.Image, tuple[int, int]]:
        original = size_of(image)
        # gray images are resized as such, a third of the work, and become RGB afterwards
        small = eight_bit(image, bits).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return small.convert("RGB"), original

    image, original = read_image(path, resized)
    if crop is not None:
        top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
        image = image.crop((left, top, left + crop[1], top + crop[0]))
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)), original


def _decoded(paths: Sequence[Path], size: tuple[int, int], bits: int, crop: tuple[int, int] | None) -> _Decoded:
    """Decode in parallel (Pillow releases the interpreter lock), in order, not far ahead of the consumer."""
    decode = partial(_decode, size=size, bits=bits, crop=crop)
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(paths), _CHUNK):
            yield from pool.map(decode, paths[start : start + _CHUNK])


def _in_memory(decoded: _Decoded, shape: tuple[int, ...]) -> DecodedImages:
    pixels = torch.empty(shape, dtype=torch.uint8)
    sizes = []
    for index, (image, size) in enumerate(decoded):
        pixels[index] = torch.from_numpy(image)
        sizes.append(size)
    return DecodedImages(pixels, tuple(sizes))


def _save(entry: Path, shape: tuple[int, ...], decoded: _Decoded) -> None:
    """Write pixels, then the JSON beside them, whose presence says that the entry is whole."""
    checksum = 0
    sizes = []
    for abandoned in entry.parent.glob(f".{entry.name}.*.partial"):  # by a killed process: we hold the lock
        abandoned.unlink(missing_ok=True)
    with replace_atomically(entry.with_suffix(".npy")) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for image, size in decoded:
            file.write(image.data)  # not a memory map, which a full disk would answer with SIGBUS
            checksum = zlib.crc32(image.data, checksum)
            sizes.append(size)
    with replace_atomically(entry.with_suffix(".json")) as file:
        file.write(json.dumps({"crc32": checksum, "sizes": sizes}).encode())


def _load(entry: Path, shape: tuple[int, ...]) -> DecodedImages | None:
    """Map an entry of the cache; ``None`` when it is missing or broken."""
    try:
        about = json.loads(entry.with_suffix(".json").read_text())
        sizes = tuple((int(height), int(width)) for height, width in about["sizes"])
        mapped = np.load(entry.with_suffix(".npy"), mmap_mode="c")
        if mapped.shape != shape or mapped.dtype != np.uint8 or len(sizes) != shape[0]:
            return None
        if zlib.crc32(mapped.data) != about["crc32"]:
            return None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return DecodedImages(torch.from_numpy(np.asarray(mapped)), sizes)
