"""What the tests of the runner share: a small collection on disk, and the real command line."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]

Command = Callable[..., subprocess.CompletedProcess[str]]


class CommandServer:
    """The command line, each time in a process of its own; see :mod:`command_server`.

    Args:
        environment: Variables of each command's environment.
        folder: For what commands print.

    Attributes:
        process: What the commands are forks of: they inherit its limits.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._output, self._errors = folder / "output", folder / "errors"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, Path(__file__).with_name("command_server.py")],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: object, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``bench`` in a folder, with further variables in its environment."""
        request = {
            "arguments": [str(argument) for argument in arguments],
            "folder": str(folder),
            "variables": {**self._environment, **variables},
            "output": str(self._output),
            "errors": str(self._errors),
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        try:
            code = int(self.process.stdout.readline())
        except BaseException:  # a test's time is up: what comes later would answer the next one
            self.process.kill()
            self.process.wait()
            self.process = self._start()
            raise
        return subprocess.CompletedProcess(arguments, code, self._output.read_text(), self._errors.read_text())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


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
