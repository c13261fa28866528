"""Whether cells come to the same results wherever they run: one worker, two, two runs on one folder, a Ray cluster.

Every cell has one CPU thread, as sums that are shared out among threads differ in their last bits. Compared are the
metrics of each cell and the scores of its images, bit for bit, and the tables, byte for byte.

    python -m benchmarks.engines --methods efficientad_s,patchcore,fastflow --datasets demo/coins,demo/gravel

With Ray installed a cluster of two nodes is started on this machine; else that row is left out.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.survival import REPOSITORY, differences


def start(arguments: Sequence[object], log: Path) -> subprocess.Popen[bytes]:
    """Start ``bench``."""
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "bench", *map(str, arguments)]
    with log.open("ab") as file:
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=file, stderr=file)


def finish(processes: Sequence[subprocess.Popen[bytes]], log: Path) -> None:
    """Wait for commands, and end if one fails."""
    codes = [process.wait() for process in processes]
    if any(codes):
        sys.exit(log.read_text()[-4000:])


@contextmanager
def two_nodes() -> Iterator[str]:
    """A Ray cluster of two nodes with a CPU each; its address."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster  # type: ignore[import-not-found]

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def results(run: Path) -> Mapping[str, object]:
    """Metrics and scores of each cell, by key."""
    records = (json.loads(path.read_text()) for path in run.glob("cells/*/record.json"))
    return {record["key"]: (record["status"], record["metrics"], record["images"]) for record in records}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="patchcore,fastflow")
    parser.add_argument("--datasets", default="demo/coins,demo/gravel")
    parser.add_argument("--train-scale", default="1")
    arguments = parser.parse_args()
    common = ["run", "--methods", arguments.methods, "--datasets", arguments.datasets, "--seeds", "0"]
    common += ["--train-scale", arguments.train_scale, "--device", "cpu", "--threads", "1"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = folder / "one worker"

        def run(what: str, *commands: Sequence[str]) -> None:
            out, log = folder / what, folder / "log"
            began = time.perf_counter()
            finish([start([*common, "--out", out, *more], log) for more in commands], log)
            spent = time.perf_counter() - began
            records, expected = results(out), results(base)
            same = sum(records.get(key) == values for key, values in expected.items())
            unlike = differences(base, out)
            counts = f"{len(records)} | {same} of {len(expected)}"
            print(f"| {what} | {counts} | {', '.join(unlike) or 'none'} | {spent:.0f} |", flush=True)

        print("| where | cells | the same bit for bit | tables that differ | seconds |\n|---|---|---|---|---|")
        run("one worker", ["--workers", "1"])
        run("two workers", ["--workers", "2"])
        run("two runs on one folder", ["--workers", "1"], ["--workers", "1"])
        if importlib.util.find_spec("ray"):
            with two_nodes() as address:
                ray = ["--engine", "ray", "--ray-address", address, "--ray", "num_cpus=1"]
                run("a Ray cluster of two nodes", ray)


if __name__ == "__main__":
    main()
