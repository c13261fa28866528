"""The embedded demo collection: needs no download and is the same on every run.

Normal images are views of one part of a photograph that ships with scikit-image, test images views of another part,
with defects drawn in and exact masks. It is written once, as an ordinary folder in the layout of MVTec AD and LOCO,
and read like any other collection.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.random import Generator
from numpy.typing import NDArray

from bench.datasets.cache import Cache
from bench.datasets.layouts.folders import DEFECTS_CONFIG
from bench.errors import DataError
from results.record import Collection

DEMO = Collection(
    name="demo",
    title="Demo",
    scenarios=4,
    note="synthetic defects on photographs: shows that the installation works, ranks nothing",
)

DEMO_SCENARIOS = ("brick", "coins", "grass", "gravel")

_TRAIN, _VALIDATION, _NORMAL, _PER_DEFECT = 48, 8, 16, 6
_TEXTURE_SPLIT = 288
"""Column that parts a 512-pixel photograph: train on its left, test on its right."""
_COIN_SPLIT = 192
_FOREIGN = {"brick": "gravel", "grass": "brick", "gravel": "grass"}
"""Of which material the foreign patches of a texture are."""

_PIXEL_VALUES = {"missing_coin": 255, "extra_coin": 254, "scratch": 253, "stain": 252}

_File = tuple[str, NDArray[np.uint8]]
"""Name relative to the scenario's folder, and gray pixels (height, width)."""


def demo_path(cache: Cache) -> Path:
    """Where the collection lies or will lie; it depends on the code that draws, so a changed one draws anew."""
    here = Path(__file__)
    code = here.read_bytes() + here.with_name("demo_scenes.py").read_bytes()
    return cache.directory / "demo" / hashlib.sha256(code).hexdigest()[:12]


def demo_folder(cache: Cache) -> Path:
    """Return the collection's folder, made on first use and again when a file of it is missing or damaged.

    Safe with several processes. It lies in the cache's directory even where the cache is disabled.

    Raises:
        DataError: The folder cannot be written.
    """
    folder = demo_path(cache)
    try:
        if _is_whole(folder, cache):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_whole(folder, cache):
                _make(folder)
    except OSError as error:
        raise DataError(
            f"cannot write the demo collection to {folder} ({error.strerror or error}): make room, or point "
            f"BENCH_CACHE at a folder that can be written"
        ) from error
    return folder


def _is_whole(folder: Path, cache: Cache) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        return cache.digests([folder / name for name in manifest]) == list(manifest.values())
    except (OSError, ValueError, AttributeError, DataError):
        return False


def _make(folder: Path) -> None:
    from PIL import Image

    for abandoned in folder.parent.glob(f".{folder.name}.*"):  # by a killed process: we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as made:
        scratch = Path(made) / "demo"
        manifest = {}
        for name, pixels in _files():
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=1)
            manifest[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        config = json.dumps(_defects_config(), indent=2)
        (scratch / "coins" / DEFECTS_CONFIG).write_text(config)
        manifest[f"coins/{DEFECTS_CONFIG}"] = hashlib.sha256(config.encode()).hexdigest()
        (scratch / "manifest.json").write_text(json.dumps(manifest, indent=1))
        if folder.exists():
            folder.rename(Path(made) / "broken")
        scratch.rename(folder)


def _files() -> Iterator[_File]:
    for number, scenario in enumerate(DEMO_SCENARIOS):
        files = _tray_files if scenario == "coins" else _texture_files
        for name, pixels in files(scenario, np.random.default_rng([2022, number])):
            yield f"{scenario}/{name}", pixels


def _texture_files(scenario: str, rng: Generator) -> Iterator[_File]:
    from bench.datasets import demo_scenes as scenes

    photograph = _photograph(scenario)
    train, test = photograph[:, :_TEXTURE_SPLIT], photograph[:, _TEXTURE_SPLIT:]
    foreign = _photograph(_FOREIGN[scenario])[:, _TEXTURE_SPLIT:]
    for index in range(_TRAIN):
        yield f"train/good/{index:03}.png", _levels(scenes.texture_view(train, rng))
    for index in range(_NORMAL):
        yield f"test/good/{index:03}.png", _levels(scenes.texture_view(test, rng))
    for defect in ("foreign_patch", "hole", "scratch", "stain"):
        for index in range(_PER_DEFECT):
            view = scenes.texture_view(test, rng)
            center = (float(rng.uniform(60, 196)), float(rng.uniform(60, 196)))
            size = (index + rng.uniform()) / _PER_DEFECT  # small to large, so that size quartiles differ
            if defect == "scratch":
                drawn = scenes.scratch(view, rng, center, length=50 + 100 * size)
            elif defect == "stain":
                drawn = scenes.stain(view, rng, center, radius=15 + 28 * size)
            elif defect == "hole":
                drawn = scenes.hole(view, rng, center, radius=8 + 15 * size)
            else:
                other = scenes.texture_view(foreign, rng)
                drawn = scenes.foreign_patch(view, rng, center, radius=14 + 22 * size, other=other)
            yield f"test/{defect}/{index:03}.png", _levels(drawn.pixels)
            yield f"ground_truth/{defect}/{index:03}_mask.png", drawn.region.astype(np.uint8) * 255


def _tray_files(scenario: str, rng: Generator) -> Iterator[_File]:
    from bench.datasets import demo_scenes as scenes

    cut_outs, background = scenes.coins_and_background(_photograph(scenario))
    left = [coin for column, coin in cut_outs if column < _COIN_SPLIT]
    right = [coin for column, coin in cut_outs if column >= _COIN_SPLIT]
    # the photograph's frame is visible in the outermost columns and rows
    train_ground, test_ground = background[4:-4, 4:_COIN_SPLIT], background[4:-4, _COIN_SPLIT:-8]
    for folder, count in (("train", _TRAIN), ("validation", _VALIDATION)):
        for index in range(count):
            yield f"{folder}/good/{index:03}.png", _levels(scenes.tray(left, train_ground, rng).pixels)
    for index in range(_NORMAL):
        yield f"test/good/{index:03}.png", _levels(scenes.tray(right, test_ground, rng).pixels)
    for index in range(2 * _PER_DEFECT):  # one coin missing; one too many; one in the wrong place, which is both
        kind = index % 3
        laid = scenes.tray(right, test_ground, rng, missing=int(kind != 1), extra=int(kind != 0))
        regions = [("missing_coin", region) for region in laid.missing]
        regions += [("extra_coin", region) for region in laid.extra]
        yield from _anomalous("logical_anomalies", index, laid.pixels, regions)
    for index in range(2 * _PER_DEFECT):
        laid = scenes.tray(right, test_ground, rng)
        y, x = laid.coins[int(rng.integers(len(laid.coins)))]
        center = (y + float(rng.uniform(-10, 10)), x + float(rng.uniform(-10, 10)))
        if index % 2:
            defect, drawn = "scratch", scenes.scratch(laid.pixels, rng, center, length=float(rng.uniform(45, 80)))
        else:
            defect, drawn = "stain", scenes.stain(laid.pixels, rng, center, radius=float(rng.uniform(10, 22)))
        yield from _anomalous("structural_anomalies", index, drawn.pixels, [(defect, drawn.region)])


def _anomalous(
    folder: str, index: int, pixels: NDArray[np.float32], regions: list[tuple[str, NDArray[np.bool_]]]
) -> Iterator[_File]:
    yield f"test/{folder}/{index:03}.png", _levels(pixels)
    for number, (defect, region) in enumerate(regions):
        value = np.uint8(_PIXEL_VALUES[defect])
        yield f"ground_truth/{folder}/{index:03}/{number:03}.png", region.astype(np.uint8) * value


def _defects_config() -> list[dict[str, object]]:
    """An empty slot is larger than the coin missing in it, so marking a coin's area there is enough."""
    from bench.datasets.demo_scenes import COIN_AREA

    return [
        {
            "defect_name": defect,
            "pixel_value": value,
            "saturation_threshold": COIN_AREA if defect == "missing_coin" else 1.0,
            "relative_saturation": defect != "missing_coin",
        }
        for defect, value in _PIXEL_VALUES.items()
    ]


def _photograph(name: str) -> NDArray[np.float32]:
    from skimage import data

    return np.asarray(getattr(data, name)(), dtype=np.float32)


def _levels(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
