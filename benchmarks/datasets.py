"""Reading a large scenario here against a plain loop, and anomalib's datamodule, interleaved in one run.

A scenario of many small PNG files is written first. Then it is listed, fingerprinted, checked, and decoded at one size;
each against what a plain loop over the same files takes: ``rglob``, reading only (what the disk gives), SHA-256,
Pillow's ``load``, and Pillow's ``load`` and ``resize``. Files are in the page cache, so the disk is as fast as it gets.

    python -m benchmarks.datasets --images 10000
    pip install 'anomalib>=2.7'   # for the comparison with its datamodule
"""

import argparse
import hashlib
import io
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import numpy as np
import psutil
from PIL import Image

# Files beside this one are called like packages, and this folder would be searched first.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.datasets.cache import Cache, usable_cores  # noqa: E402
from bench.datasets.checking.check import check_scenario  # noqa: E402
from bench.datasets.images import decode_images  # noqa: E402
from bench.datasets.scenario import Scenario  # noqa: E402
from bench.datasets.selection import select_scenarios  # noqa: E402

DISTINCT = 64
"""Pictures that are really encoded; the others are copies with a few bytes after their end, so that all differ."""


def write_scenario(root: Path, images: int, side: int) -> list[Path]:
    folder = root / "parts" / "part"
    smooth = np.random.default_rng(0).integers(0, 256, (DISTINCT, side // 8, side // 8, 3)).astype(np.uint8)
    encoded = []
    for picture in smooth:
        buffer = io.BytesIO()
        Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "png")
        encoded.append(buffer.getvalue())
    paths = []
    for index in range(images):
        part = "train/good" if index < 0.8 * images else "test/good"
        path = folder / part / f"{index:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[index % DISTINCT] + index.to_bytes(4, "big"))
        paths.append(path)
    time.sleep(2.5)  # what has just been written could change again unseen: its digest would not be remembered
    return paths


def listed(root: Path, cache: Cache) -> Scenario:
    (scenario,) = select_scenarios("parts/part", root, cache)
    return scenario


def listed_plainly(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.png") if path.is_file())


def read_plainly(paths: list[Path]) -> int:
    return sum(len(path.read_bytes()) for path in paths)


def hashed_plainly(paths: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def loaded_plainly(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            image.load()


def decoded_plainly(paths: list[Path], size: int) -> None:
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def decoded_by_anomalib(root: Path, size: int) -> None:
    from anomalib.data import Folder
    from torchvision.transforms.v2 import Resize

    module = Folder(
        name="part", root=root / "parts/part", normal_dir="train/good", normal_test_dir="test/good",
        train_batch_size=32, eval_batch_size=32, num_workers=usable_cores(), augmentations=Resize((size, size)),
        val_split_mode="none", test_split_mode="from_dir",
    )  # fmt: skip
    module.setup()
    for loader in (module.train_dataloader(), module.test_dataloader()):
        for _ in loader:
            pass


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


class Growth:
    """How many MiB of memory of its own, files mapped into it not counted, a process takes more while a block runs."""

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._start = self.peak = self._own()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def mib(self) -> float:
        return (self.peak - self._start) / 2**20

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, self._own())

    @staticmethod
    def _own() -> int:
        memory = psutil.Process().memory_info()
        return memory.rss - getattr(memory, "shared", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--side", type=int, default=256, help="height and width of the files in pixels")
    parser.add_argument("--size", type=int, default=224, help="height and width decoded to")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are written; a temporary folder by default")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        root = Path(temporary)
        paths = write_scenario(root / "data", arguments.images, arguments.side)
        scenario = listed(root / "data", Cache(root / "any"))
        assert len(scenario.train) + len(scenario.test) == len(paths)
        times: dict[str, list[float]] = {}

        def timed(name: str, work: Callable[[], object]) -> None:
            times.setdefault(name, []).append(seconds(work))

        size = (arguments.size, arguments.size)
        growth = 0.0
        for turn in range(arguments.repeat):
            cache = Cache(root / f"cache-{turn}")
            timed("rglob", lambda: listed_plainly(root / "data"))
            timed("list", lambda cache=cache: listed(root / "data", cache))
            timed("read", lambda: read_plainly(paths))
            timed("sha256", lambda: hashed_plainly(paths))
            timed("fingerprint", lambda cache=cache: listed(root / "data", cache).fingerprint)
            timed("fingerprint again", lambda cache=cache: listed(root / "data", cache).fingerprint)
            timed("load", lambda: loaded_plainly(paths))
            timed("check", lambda cache=cache: check_scenario(listed(root / "data", cache)))
            timed("load, resize", lambda: decoded_plainly(paths, arguments.size))
            with Growth() as memory:
                timed("decode", lambda cache=cache: decode_images(paths, size, cache))
            growth = max(growth, memory.mib)
            timed("decode again", lambda cache=cache: decode_images(paths, size, cache))
            if find_spec("anomalib"):
                timed("anomalib", lambda: decoded_by_anomalib(root / "data", arguments.size))

        megabytes = sum(path.stat().st_size for path in paths) / 1e6
        best = {name: min(values) for name, values in times.items()}
        print(
            f"{len(paths)} PNG files of {arguments.side}×{arguments.side}, {megabytes:.0f} MB; {usable_cores()} cores; "
            f"best of {arguments.repeat}\n"
        )
        print("| here | s | MB/s | plain loop | s | times faster |\n|---|---|---|---|---|---|")
        for ours, plain in (
            ("list", "rglob"),
            ("fingerprint", "read"),
            ("fingerprint", "sha256"),
            ("fingerprint again", "sha256"),
            ("check", "load"),
            ("decode", "load, resize"),
            ("decode again", "load, resize"),
            ("decode", "anomalib"),
        ):
            if plain in best:
                rate = f"{megabytes / best[ours]:.0f}"
                ratio = best[plain] / best[ours]
                print(f"| {ours} | {best[ours]:.2f} | {rate} | {plain} | {best[plain]:.2f} | {ratio:.1f} |")
        pixels = 3 * arguments.size**2 * len(paths) / 2**20
        print(
            f"\nDecoding grew the process by {growth:.0f} MiB at most, for {pixels:.0f} MiB of pixels, once per size."
        )
        if not find_spec("anomalib"):
            print("anomalib is not installed: no comparison with its datamodule.")


if __name__ == "__main__":
    main()
