"""Whether a run survives what befalls it: every cell has one record at the end, and the tables are the same.

Some cells of a detector that takes milliseconds are run once undisturbed. Then two runs on one folder, each with two
workers and in turn started again whenever it has ended, do the same cells while workers and runs are killed at random,
the disk is full for a while, and one run is stopped until the other has taken its cells over, and then goes on.

    python -m benchmarks.survival --cells 1000

Needs Linux, for the small disk the rights to mount one; else the disk is not filled, which is said.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from bench.execution.claims import all_claims

REPOSITORY = Path(__file__).resolve().parents[1]
TAKEOVER = 4.0
"""Seconds of silence after which the runs take each other for dead."""
LAST = 100
"""So many cells from the end nothing more happens but that a run is stopped."""


def write_images(root: Path) -> None:
    """A scenario of a few tiny images."""
    random_numbers = np.random.default_rng(0)
    for name, count, bright in (("train/good", 4, 0), ("test/good", 3, 0), ("test/spot", 3, 60)):
        for index in range(count):
            pixels = random_numbers.integers(90, 130, (16, 16, 3), dtype=np.uint8)
            pixels[4:8, 4:8] += bright
            path = root / "parts/bolt" / name / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            if bright:
                mask = np.zeros((16, 16), np.uint8)
                mask[4:8, 4:8] = 255
                truth = root / "parts/bolt/ground_truth/spot" / f"{index:03}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth)


class Command:
    """``bench run`` of all cells on a run folder, started again whenever it has ended too early."""

    def __init__(self, data: Path, out: Path, cells: int, log: Path) -> None:
        seeds = ",".join(map(str, range(cells)))
        method = f"{REPOSITORY / 'benchmarks/detectors/swift.py'}:Swift"
        self._arguments = [
            *(sys.executable, "-m", "bench", "run", "--methods", method, "--datasets", "parts"),
            *("--data-root", str(data), "--seeds", seeds, "--out", str(out), "--workers", "2", "--device", "cpu"),
            *("--retry", "1000", "--takeover-after", str(TAKEOVER), "--retry-failed"),
        ]
        self._log = log
        self.starts = 0
        self.codes: Counter[int] = Counter()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self.starts += 1
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._arguments, stdout=log, stderr=log, env=environment)

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        return self.process.poll() if self.process else None

    def kept_up(self) -> bool:
        """Start it again if it has ended otherwise than well; return whether it has ended well."""
        code = self.poll()
        if code is None:
            return False
        if code == 0:
            return True
        self.codes[code] += 1
        time.sleep(0.5)
        self.start()
        return False

    def workers(self) -> list[psutil.Process]:
        """Its worker processes."""
        if self.process is None:
            return []
        try:
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        except psutil.Error:
            return []


class Misfortune:
    """What befalls two runs, at random, and what has befallen them."""

    def __init__(self, runs: Sequence[Command], out: Path, seed: int) -> None:
        self._runs = runs
        self._out = out
        self._random = random.Random(seed)
        self.log: list[str] = []
        self._begun = time.monotonic()

    def _say(self, what: str) -> None:
        self.log.append(f"{time.monotonic() - self._begun:6.1f} s  {what}")
        print(self.log[-1], flush=True)

    def kill_worker(self) -> None:
        """``kill -9`` of a worker."""
        workers = [worker for run in self._runs for worker in run.workers()]
        if workers:
            worker = self._random.choice(workers)
            worker.kill()
            self._say(f"kill -9 of worker {worker.pid}")

    def kill_run(self) -> None:
        """``kill -9`` of a run."""
        run = self._random.choice(self._runs)
        if run.process is not None and run.poll() is None:
            run.process.kill()
            run.process.wait()
            self._say(f"kill -9 of run {run.process.pid}")

    def fill_disk(self) -> None:
        """Fill the disk of the run folder for a while."""
        ballast = self._out.parent / "ballast"
        free = shutil.disk_usage(self._out).free
        if free > 1e9:
            self._say("the disk is too large to be filled")
            return
        try:
            with ballast.open("wb") as file:
                while True:
                    file.write(bytes(65536))
        except OSError:
            self._say(f"disk full, {free / 1e6:.0f} MB were free")
        until = time.monotonic() + 30  # a run may be starting
        while time.monotonic() < until and all(run.poll() is None for run in self._runs):
            time.sleep(0.2)
        ended = [str(run.poll()) for run in self._runs if run.poll() is not None]
        ballast.unlink()
        self._say(f"disk free again, a run has ended with exit code {ended[0]}" if ended else "disk free again")

    def stop_run(self) -> bool:
        """Stop a run and its workers until its cells have been taken over, and let them go on; return whether."""
        run, other = self._random.sample(list(self._runs), 2)
        if run.process is None or len(run.workers()) < 2 or len(other.workers()) < 2:
            return False
        processes = [psutil.Process(run.process.pid), *run.workers()]
        for process in processes:
            process.suspend()
        holder = run.process.pid
        self._say(f"SIGSTOP of run {holder}")
        until = time.monotonic() + 20 * TAKEOVER
        while time.monotonic() < until and not self._taken_over(holder):
            time.sleep(0.2)
            other.kept_up()
        taken = self._taken_over(holder)
        for process in processes:
            process.resume()
        self._say(f"SIGCONT of run {holder}, {taken} of its cells taken over")
        return True

    def _taken_over(self, pid: int) -> int:
        claims = all_claims(self._out).values()
        return sum(any(f"process {pid} " in why and "silent" in why for why in claim.interrupted) for claim in claims)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mount a small disk, if that is allowed; tells whether it is."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,nr_inodes=200k"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=False)


def survive(data: Path, out: Path, cells: int, seed: int, log: Path) -> tuple[list[Command], Misfortune]:
    """Run the cells under misfortune until both runs have ended well."""
    runs = [Command(data, out, cells, log) for _ in range(2)]
    misfortune = Misfortune(runs, out, seed)
    draw = random.Random(seed + 1)
    for run in runs:
        run.start()
    deeds = [misfortune.kill_worker, misfortune.kill_run, misfortune.kill_worker, misfortune.kill_worker]
    events = [*deeds, misfortune.fill_disk, *deeds, misfortune.fill_disk, *deeds]
    stopped = False
    while True:
        ended = [run.kept_up() for run in runs]
        if all(ended):
            break
        records = len(list(out.glob("cells/*/record.json")))
        if events and records and records < cells - LAST:
            events.pop(0)()
        elif not stopped and records >= cells - LAST:
            # The other one takes them over when it has nothing else to do.
            stopped = misfortune.stop_run()
        time.sleep(draw.uniform(0.5, 2))
    if events:
        print(f"{len(events)} misfortunes were left when the cells were done: more --cells are needed")
    return runs, misfortune


def undisturbed(data: Path, out: Path, cells: int, log: Path) -> None:
    """Run the cells with nothing in their way."""
    run = Command(data, out, cells, log)
    run.start()
    assert run.process is not None
    if run.process.wait():
        sys.exit(f"the undisturbed run has failed:\n{log.read_text()[-4000:]}")


def differences(one: Path, other: Path) -> list[str]:
    """Tables of two reports that are not the same byte for byte; cells.csv has times."""
    tables = sorted(path.name for path in (one / "report").iterdir() if path.suffix in (".csv", ".tex"))
    tables = [name for name in tables if name not in ("cells.csv", "report.tex")]
    return [name for name in tables if (one / "report" / name).read_bytes() != (other / "report" / name).read_bytes()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--megabytes", type=int, default=300, help="size of the disk that is filled")
    arguments = parser.parse_args()
    cells = arguments.cells
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "data")
        undisturbed(folder / "data", folder / "calm/run", cells, folder / "calm.log")
        with small_disk(folder / "disk", arguments.megabytes) as mounted:
            print("a small disk is mounted" if mounted else "no small disk can be mounted: it is not filled")
            out = folder / "disk/run"
            runs, misfortune = survive(folder / "data", out, cells, arguments.seed, folder / "log")
            records = [json.loads(path.read_text()) for path in out.glob("cells/*/record.json")]
            seeds = Counter(record["seed"] for record in records)
            missing = [seed for seed in range(cells) if seeds[seed] != 1]
            failed = [record["seed"] for record in records if record["status"] != "ok"]
            unlike = differences(folder / "calm/run", out)
            claims = all_claims(out).values()
            taken_over = sum(len(claim.interrupted) for claim in claims)
            drafts = list(out.glob(".work/drafts/*"))
        print(
            f"{len(records)} records of {cells} cells, {sum(run.starts for run in runs)} starts, exit codes "
            f"{dict(sum((run.codes for run in runs), Counter()))}, {taken_over} claims taken over, "
            f"{sum(bool(record['interrupted']) for record in records)} records of interrupted cells, "
            f"{len(drafts)} drafts left, {len(misfortune.log)} misfortunes"
        )
        if missing or failed or unlike or len(records) != cells:
            sys.exit(f"not survived: without one record {missing[:10]}, failed {failed[:10]}, tables differ: {unlike}")
        print("survived: every cell has one record, and the tables are byte-identical")


if __name__ == "__main__":
    main()
