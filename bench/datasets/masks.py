"""Ground truth: masks and saturated defects at their image's original size, never resized."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.datasets.images import read_image
from bench.datasets.scenario import TestImage, expected_mask
from bench.errors import DataError
from metrics import Defect, saturation_pixels


def read_mask(image: TestImage, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Read the defect pixels of a test image, never resized.

    A pixel is defective from half the range of the file's type on (128 of 255); where no value exceeds 1, from 1 on.
    In LOCO form every pixel of any region is.

    Args:
        image: The test image.
        size: Height and width of the image on disk.

    Returns:
        bool array of shape ``size``; ``None`` for a normal image. It may be empty on an anomalous one.

    Raises:
        DataError: The mask of an anomalous image is missing, damaged or of another size.
    """
    if not image.anomalous:
        return None
    mask = np.zeros(size, dtype=np.bool_)
    for path in _masks_of(image):
        levels = _read_levels(path, image, size)
        mask |= levels >= (1 if image.saturated else _half_range(levels))
    return mask


def read_defects(image: TestImage, size: tuple[int, int]) -> list[Defect]:
    """Read the defect regions of a test image in LOCO form; they may overlap.

    Saturations are as declared: one of no pixel, or of more than the region has, is for the evaluation to correct and
    to report.

    Args:
        image: The test image.
        size: Height and width of the image on disk.

    Returns:
        One defect per ground truth file that marks any pixel; empty for a normal image.

    Raises:
        DataError: The ground truth of an anomalous image is missing, damaged or of another size, or its pixel value
            is not in ``defects_config.json``.
    """
    if not image.anomalous:
        return []
    masks = _masks_of(image)
    if image.saturation is None:
        raise ValueError(f"{image.name} has no saturation thresholds: its ground truth is one mask, see read_mask")
    rules = _saturation_rules(image.saturation)
    regions = []
    for path in masks:
        levels = _read_levels(path, image, size)
        values = [int(value) for value in np.flatnonzero(np.bincount(levels.ravel())) if value]
        if not values:
            continue
        if len(values) > 1 or values[0] not in rules:
            raise DataError(
                f"mask {path} holds the values {_listed(values)}: expected 0 and one pixel value of "
                f"{image.saturation.name} ({_listed(sorted(rules))})"
            )
        mask = levels > 0
        threshold, relative = rules[values[0]]
        regions.append(Defect(mask, saturation_pixels(int(mask.sum()), threshold, relative=relative)))
    return regions


def _masks_of(image: TestImage) -> tuple[Path, ...]:
    if not image.masks:
        raise DataError(f"no ground truth for {image.path}: expected {expected_mask(image)}")
    return image.masks


def _saturation_rules(config: Path) -> dict[int, tuple[float, bool]]:
    """Pixel value to saturation threshold and whether that is relative to the area."""
    try:
        defects = json.loads(config.read_text())
        return {
            int(defect["pixel_value"]): (float(defect["saturation_threshold"]), bool(defect["relative_saturation"]))
            for defect in defects
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read saturation thresholds from {config} ({type(error).__name__}: {error}): expected a list of "
            f"objects with pixel_value, saturation_threshold and relative_saturation"
        ) from error


def _read_levels(path: Path, image: TestImage, size: tuple[int, int]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    levels = read_image(path, _gray_levels)
    if levels.shape != size:
        raise DataError(
            f"mask {path} has {_by(levels.shape)} pixels but image {image.path} has {_by(size)} (height × width): "
            f"ground truth is never resized, so both must agree"
        )
    return levels


def _gray_levels(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        raise ValueError(f"unsupported pixel type {image.mode}, expected 8 or 16 bit integers")
    return np.asarray(image.convert("L"))


def _half_range(levels: NDArray[np.uint8] | NDArray[np.uint16]) -> int:
    return 1 if levels.max() <= 1 else (np.iinfo(levels.dtype).max + 1) // 2


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values) or "none"
