"""Which masks mark a defect: in some collections nothing else tells normal images from anomalous ones."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from bench.datasets.cache import Cache, replace_atomically, usable_cores
from bench.datasets.pixels import read_image


def marked(masks: Sequence[Path], cache: Cache) -> list[bool]:
    """Find out which masks have any pixel that is not 0.

    What was found is remembered under the files' digests, so the masks are decoded once.

    Raises:
        DataError: A mask cannot be read.
    """
    if not cache.enabled:
        return _read(masks)
    recipe = json.dumps([1, cache.digests(masks)])
    entry = cache.directory / "marked" / f"{hashlib.sha256(recipe.encode()).hexdigest()}.json"
    try:
        remembered = json.loads(entry.read_text())
    except (OSError, ValueError):
        remembered = None
    if isinstance(remembered, list) and len(remembered) == len(masks):
        return [bool(value) for value in remembered]
    values = _read(masks)
    try:
        with replace_atomically(entry) as file:
            file.write(json.dumps(values).encode())
    except OSError:
        pass  # costs time, never a run
    return values


def _read(masks: Sequence[Path]) -> list[bool]:
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(lambda path: read_image(path, _marks_anything), masks))


def _marks_anything(mask: Image.Image) -> bool:
    return mask.convert("L" if mask.mode in ("1", "P", "LA", "RGB", "RGBA") else mask.mode).getbbox() is not None
