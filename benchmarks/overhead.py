"""The runner's own time per cell: plan, claim, hand over, record, tell; and how long status and report take.

The detector takes milliseconds and the images are tiny; what a worker spends in the cell's own stages, as its record
says, is taken off. Seconds are of this machine; compared are the two numbers of cells.

    python -m benchmarks.overhead --cells 1000 10000
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.survival import REPOSITORY, write_images


def bench(*arguments: object) -> float:
    """Seconds that a command takes."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    start = time.perf_counter()
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - start


def measure(cells: int, workers: int) -> dict[str, float]:
    """Seconds of the commands on a run folder of so many cells."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        method = f"{REPOSITORY / 'benchmarks/detectors/swift.py'}:Swift"
        # Seeds are the cheapest way to many cells; the command line would be too long for all of them.
        config = folder / "run.toml"
        config.write_text(f'methods = "{method}"\ndatasets = "parts"\nseeds = {list(range(cells))}\n')
        common = ("--config", config, "--data-root", folder, "--out", folder / "run", "--device", "cpu")
        run = ("run", *common, "--workers", workers)
        plan = bench("plan", *common, "--json")
        once = bench(*run)
        records = [json.loads(path.read_text()) for path in folder.glob("run/cells/*/record.json")]
        own = sum(sum(record["timings"].values()) for record in records)
        again = bench(*run)
        status = bench("status", folder / "run")
        report = bench("report", folder / "run", "--out", folder / "report")
        if len(records) != cells:
            sys.exit(f"{len(records)} records of {cells} cells")
        return {"plan": plan, "run": once, "own": own, "again": again, "status": status, "report": report}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    start = measure(1, arguments.workers)
    print(f"load {os.getloadavg()[0]:.1f}; {arguments.workers} workers; start-up and one cell: {start['run']:.1f} s\n")
    heads = ("cells", "plan, ms a cell", "run, ms a cell", "the cell itself, ms", "again, s", "status, s", "report, s")
    print(f"| {' | '.join(heads)} |")
    print("|---|---|---|---|---|---|---|")
    for cells in arguments.cells:
        spent = measure(cells, arguments.workers)
        plan = 1e3 * (spent["plan"] - start["plan"]) / cells
        # The report at the end of the run is not the runner's.
        run = 1e3 * (spent["run"] - start["run"] - (spent["report"] - start["report"])) / cells
        own = 1e3 * spent["own"] / cells / arguments.workers
        print(
            f"| {cells} | {plan:.2f} | {run:.1f} | {own:.1f} | {spent['again']:.1f} | {spent['status']:.1f} | "
            f"{spent['report']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
