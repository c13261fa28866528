"""A small collection on disk, a detector of another package, and the real command line."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
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


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that offers the detector ``tiny`` by entry point, as an installed package does."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copy(Path(__file__).parent / "plugin" / "tiny_detectors.py", folder)
    info = folder / "tiny_detectors-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the collection ``parts`` of the scenarios ``bolt`` and ``nut``."""
    root = tmp_path_factory.mktemp("data")
    write_scenario(root / "parts/bolt", seed=1)
    write_scenario(root / "parts/nut", size=(64, 40), seed=2)
    return root


@pytest.fixture(scope="session")
def environment(plugin: Path) -> dict[str, str]:
    """Environment variables under which ``python -m bench`` finds our code and the plugin."""
    path = os.pathsep.join([str(REPOSITORY), str(plugin)])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "120", "PYTHONWARNINGS": "default"}


@pytest.fixture
def bench(environment: dict[str, str], tmp_path: Path) -> Command:
    """Run the real command line in a subprocess, in an empty folder."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bench", *map(str, arguments)],
            env={**environment, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    return run
