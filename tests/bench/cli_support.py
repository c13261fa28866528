"""What the tests of the runner share: a small collection on disk, and the real command line."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
METADATA = "Metadata-Version: 2.1\nName: tiny-detectors\nVersion: 1.0\n"
ENTRY_POINTS = "[bench.methods]\ntiny = tiny_detectors:Tiny\n"

Command = Callable[..., subprocess.CompletedProcess[str]]


def write_scenario(folder: Path, size: tuple[int, int] = (40, 48), train: int = 6, seed: int = 0) -> None:
    """Write a scenario in the MVTec layout: noisy gray images, defects are bright squares."""
    random = np.random.default_rng(seed)

    def save(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    def image() -> np.ndarray:
        return random.integers(90, 130, (*size, 3), dtype=np.uint8)

    for index in range(train):
        save(folder / "train/good" / f"{index:03}.png", image())
    for index in range(3):
        save(folder / "test/good" / f"{index:03}.png", image())
    for defect in ("dent", "stain"):
        for index in range(2):
            pixels, mask = image(), np.zeros(size, np.uint8)
            top, left = int(random.integers(size[0] - 6)), int(random.integers(size[1] - 6))
            mask[top : top + 6, left : left + 6] = 255
            pixels[mask > 0] += 25
            save(folder / "test" / defect / f"{index:03}.png", pixels)
            save(folder / "ground_truth" / defect / f"{index:03}_mask.png", mask)
