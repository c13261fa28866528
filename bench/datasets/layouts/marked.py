"""Which masks mark a defect: in some collections nothing else tells normal images from anomalous ones."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from bench.datasets.cache import Cache, usable_cores
from bench.datasets.pixels import read_image


def marked(masks: Sequence[Path], cache: Cache) -> list[bool]:
    """Find out which masks have any pixel that is not 0.

    What was found is remembered under the files' digests, so the masks are decoded once.

    Raises:
        DataError: A mask cannot be read.
    """
    key = hashlib.sha256(json.dumps([1, cache.digests(masks)]).encode()).hexdigest()
    return cache.remembered("marked", key, lambda: _read(masks))


def _read(masks: Sequence[Path]) -> list[bool]:
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(lambda path: read_image(path, _marks_anything), masks))


def _marks_anything(mask: Image.Image) -> bool:
    return mask.convert("L" if mask.mode in ("1", "P", "LA", "RGB", "RGBA") else mask.mode).getbbox() is not None
