"""The arrays that a cell may keep beside its record: anomaly maps and a few examples to look at."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from results.atomic import write_atomically
from results.errors import ResultError
from results.record import ImageResult

MAPS_FILE = "maps.npz"
NORMAL_MAPS_FILE = "normal_maps.npz"
EXAMPLES_FILE = "examples.npz"
THUMBNAIL_SIDE = 256


@dataclass(frozen=True, eq=False)
class Example:
    """One test image for the figure, at thumbnail size: at most 256 pixels on the longer side.

    Attributes:
        name: The image's name in the record.
        image: uint8 (h, w, 3), RGB.
        mask: bool (h, w), defect pixels; ``None`` if nobody has marked them.
        map: float32 (h, w), the anomaly map, higher is more anomalous.
    """

    name: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_] | None
    map: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        size = self.image.shape[:2]
        if self.image.dtype != np.uint8 or self.image.shape != (*size, 3):
            raise ValueError(f"an example's image is uint8 (h, w, 3), got {self.image.dtype} {self.image.shape}")
        if self.mask is not None and (self.mask.dtype != np.bool_ or self.mask.shape != size):
            raise ValueError(f"an example's mask is bool {size}, got {self.mask.dtype} {self.mask.shape}")
        if self.map.dtype != np.float32 or self.map.shape != size:
            raise ValueError(f"an example's map is float32 {size}, got {self.map.dtype} {self.map.shape}")
        if max(size) > THUMBNAIL_SIDE:
            raise ValueError(f"an example has at most {THUMBNAIL_SIDE} pixels on its longer side, got {size}")


def make_example(
    name: str,
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.bool_] | None,
    anomaly_map: npt.NDArray[np.floating[Any]],
) -> Example:
    """Shrink one test image, its ground truth and its anomaly map to thumbnail size.

    Args:
        name: The image's name in the record.
        image: uint8 (H, W, 3).
        mask: bool (H, W), or ``None`` if nobody has marked the defects. A thumbnail pixel is defect if any of it is,
            so that thin scratches stay visible.
        anomaly_map: Float, of any resolution.
    """
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk_image = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    shrunk_mask = None
    if mask is not None:
        shrunk_mask = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)) > 0
    shrunk_map = Image.fromarray(anomaly_map.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    return Example(name, np.asarray(shrunk_image), shrunk_mask, np.asarray(shrunk_map))


def choose_examples(images: Sequence[ImageResult], normal: int = 2, anomalous: int = 4) -> list[str]:
    """Choose the test images to show: by name, never by score.

    The normal images are the first by name; the anomalous ones are the first of each defect type, then the second of
    each, until there are enough.

    Returns:
        Names, the normal ones first, in the order in which the figure shows them.
    """
    by_defect: dict[str, list[str]] = {}
    for image in sorted(images, key=lambda image: image.name):
        if image.anomalous:
            by_defect.setdefault(image.defect, []).append(image.name)
    turns = sorted((turn, defect, name) for defect, names in by_defect.items() for turn, name in enumerate(names))
    chosen = sorted((defect, name) for _, defect, name in turns[:anomalous])
    return sorted(image.name for image in images if not image.anomalous)[:normal] + [name for _, name in chosen]


@dataclass(frozen=True, eq=False)
class NormalMaps:
    """Maps of the normal images that thresholds were chosen on.

    Attributes:
        maps: Image name to float16 or float32 (h, w), at the network's resolution.
        scores: Of the images, in the same order; ``None`` where only their maps are known.
    """

    maps: Mapping[str, npt.NDArray[np.floating[Any]]]
    scores: Sequence[float] | None


def write_examples(directory: Path, examples: Sequence[Example]) -> Path:
    """Write the examples of the cell whose folder is ``directory``.

    Raises:
        ResultError: The operating system refused.
    """
    arrays: dict[str, npt.NDArray[Any]] = {"names": np.array([example.name for example in examples], dtype=np.str_)}
    for index, example in enumerate(examples):
        arrays[f"image_{index}"] = example.image
        if example.mask is not None:
            arrays[f"mask_{index}"] = example.mask
        arrays[f"map_{index}"] = example.map
    path = directory / EXAMPLES_FILE
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
    return path


def read_examples(directory: Path) -> list[Example]:
    """Read the examples of the cell whose folder is ``directory``; empty if it has none.

    Raises:
        ResultError: The file is damaged.
    """
    arrays = _read(directory / EXAMPLES_FILE)
    if arrays is None:
        return []
    try:
        return [
            Example(str(name), arrays[f"image_{index}"], arrays.get(f"mask_{index}"), arrays[f"map_{index}"])
            for index, name in enumerate(arrays["names"])
        ]
    except (KeyError, ValueError) as error:
        raise _damaged(directory / EXAMPLES_FILE, error) from error


def write_maps(directory: Path, maps: Mapping[str, npt.NDArray[np.floating[Any]]]) -> Path:
    """Write the network-resolution anomaly maps of the cell whose folder is ``directory``.

    Args:
        directory: Of the cell.
        maps: Image name to float16 or float32 (h, w); sizes may differ.

    Raises:
        ResultError: The operating system refused.
    """
    return _write_maps(directory / MAPS_FILE, maps)


def read_maps(directory: Path) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Read the maps of the cell whose folder is ``directory``: image name to float16 or float32 (h, w).

    Raises:
        ResultError: The cell kept no maps, or the file is damaged.
    """
    path = directory / MAPS_FILE
    arrays = _read(path)
    if arrays is None:
        raise ResultError(f"no anomaly maps at {path}; run the cell again with --keep-maps")
    return _maps_in(arrays, path)


def write_normal_maps(directory: Path, normal: NormalMaps) -> Path:
    """Write the maps of the normal images that thresholds of a cell were chosen on.

    Raises:
        ResultError: The operating system refused.
    """
    scores = {} if normal.scores is None else {"scores": np.array(normal.scores, np.float64)}
    return _write_maps(directory / NORMAL_MAPS_FILE, normal.maps, scores)


def read_normal_maps(directory: Path) -> NormalMaps | None:
    """Read what :func:`write_normal_maps` wrote; ``None`` if the cell kept none.

    Raises:
        ResultError: The file is damaged.
    """
    path = directory / NORMAL_MAPS_FILE
    arrays = _read(path)
    if arrays is None:
        return None
    return NormalMaps(_maps_in(arrays, path), arrays["scores"].tolist() if "scores" in arrays else None)


def _write_maps(
    path: Path,
    maps: Mapping[str, npt.NDArray[np.floating[Any]]],
    more: Mapping[str, npt.NDArray[np.float64]] | None = None,
) -> Path:
    arrays: dict[str, npt.NDArray[Any]] = {"names": np.array(list(maps), dtype=np.str_), **(more or {})}
    for index, (name, array) in enumerate(maps.items()):
        if array.ndim != 2 or array.dtype not in (np.float16, np.float32):
            raise ValueError(f"a map is float16 or float32 (h, w), got {array.dtype} {array.shape} for {name}")
        arrays[f"map_{index}"] = array
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
    return path


def _maps_in(arrays: Mapping[str, npt.NDArray[Any]], path: Path) -> dict[str, npt.NDArray[np.floating[Any]]]:
    try:
        return {str(name): arrays[f"map_{index}"] for index, name in enumerate(arrays["names"])}
    except KeyError as error:
        raise _damaged(path, error) from error


def _read(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ResultError:
    return ResultError(f"{path} is damaged ({error}); delete its folder and run again to redo the cell")
