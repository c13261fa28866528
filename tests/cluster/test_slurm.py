"""Runs on a real Slurm, such as the one of ``slurm_node.sh``."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.execution.claims import all_claims
from results.record import Record
from results.store import RunStore

pytest.importorskip("submitit", reason="needs submitit: pip install 'anomaly-bench[slurm]'")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True, check=False).returncode != 0,
        reason="needs a Slurm: tests/cluster/slurm_node.sh up FOLDER, and SLURM_CONF=FOLDER/slurm.conf",
    ),
]

PAUSE = 1.0
"""Seconds in each of the 20 steps of a cell that a test has to find running."""


class Runs:
    """Commands ``bench run`` with one run folder.

    Attributes:
        folder: The run folder.
    """

    def __init__(self, folder: Path, data_root: Path, environment: dict[str, str]) -> None:
        self.folder = folder / "run"
        self._at = folder
        self._data_root = data_root
        self._environment = environment
        self._started = 0

    def start(self, *arguments: object) -> "Run":
        self._started += 1
        log = self._at / f"printed-{self._started}"
        command = [sys.executable, "-m", "bench", "run", "--methods", "tiny", "--datasets", "parts"]
        common = ["--data-root", self._data_root, "--out", self.folder, *arguments]
        with log.open("w") as file:
            process = subprocess.Popen(
                [*command, *map(str, common)],
                cwd=self._at,
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return Run(process, log)

    def records(self) -> list[Record]:
        return RunStore(self.folder).records()


class Run:
    """One such command."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def printed(self) -> str:
        return self.log.read_text()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait; the time limit of the test ends it."""
        while not condition():
            assert self.process.poll() is None, self.printed
            time.sleep(0.2)

    def code(self) -> int:
        return self.process.wait()


@pytest.fixture
def runs(tmp_path: Path, data_root: Path, environment: dict[str, str]) -> Runs:
    extra = str(Path(sys.modules["submitit"].__path__[0]).parent)
    return Runs(tmp_path, data_root, {**environment, "PYTHONPATH": f"{environment['PYTHONPATH']}:{extra}"})


def queued(folder: Path) -> list[str]:
    """The jobs of a run folder that wait or run, without those that are ending."""
    command = ["squeue", "--noheader", "--states=PENDING,RUNNING", "--format=%F_%K %o"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in answer.splitlines() if str(folder) in line]


def slurm(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def test_jobs_record_what_this_machine_would(runs: Runs, tmp_path: Path) -> None:
    jobs = runs.start("--seeds", "0,1", "--engine", "slurm", "--slurm", "time=10,cpus-per-task=1", "--jobs", "2")
    assert jobs.code() == 0, jobs.printed
    assert re.search(r"done .* tiny · parts/bolt · 0: .*\n", jobs.printed)
    assert "another run" not in jobs.printed
    there, runs.folder = runs.records(), tmp_path / "local"
    assert runs.start("--seeds", "0,1").code() == 0
    here = runs.records()
    assert len(here) == 4
    assert [(one.key, one.metrics) for one in there] == [(one.key, one.metrics) for one in here]


def test_what_sbatch_says_of_an_option_is_shown(runs: Runs) -> None:
    run = runs.start("--engine", "slurm", "--slurm", "partition=nowhere,time=10")
    assert run.code() == 2
    assert "invalid partition specified: nowhere" in run.printed
    assert not list((runs.folder / "slurm").iterdir())


def test_cells_of_a_cancelled_and_of_a_requeued_job_are_run_again(runs: Runs) -> None:
    pause = f"tiny.pause={PAUSE}"
    run = runs.start("--seeds", "0,1", "--set", pause, "--engine", "slurm", "--slurm", "time=10", "--jobs", "2")
    run.until(lambda: run.printed.count("start") == 2)
    assert len({claim.holder for claim in all_claims(runs.folder).values() if not claim.ended}) == 2
    cancelled, requeued = sorted(queued(runs.folder))
    slurm("scancel", cancelled)
    slurm("scontrol", "requeue", requeued)
    assert run.code() == 0, run.printed
    records = runs.records()
    assert [record.status for record in records] == ["ok"] * 4
    assert sum(bool(record.interrupted) for record in records) == 2
    assert run.printed.count("again") == 2


def test_a_preempted_job_continues(runs: Runs) -> None:
    pause = f"tiny.pause={PAUSE}"
    run = runs.start("--set", pause, "--engine", "slurm", "--slurm", "partition=debug,time=10", "--jobs", "1")
    run.until(lambda: "start" in run.printed)
    slurm("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 3")
    assert run.code() == 0, run.printed
    assert [record.status for record in runs.records()] == ["ok"] * 2
    assert run.printed.count("again") == 1


def test_a_job_whose_walltime_is_over_continues(runs: Runs) -> None:
    """Three minutes of cells; the signal comes up to a minute early."""
    options = ("--seeds", "0,1,2,3,4,5,6,7,8", "--set", "tiny.pause=0.5", "--engine", "slurm", "--jobs", "1")
    run = runs.start(*options, "--slurm", "time=00:03:00,signal=USR2@20")
    assert run.code() == 0, run.printed
    assert [record.status for record in runs.records()] == ["ok"] * 18
    logs = "".join(log.read_text() for log in (runs.folder / "slurm").glob("*_log.*"))
    assert "Requeued job" in logs


def test_a_lost_connection_ends_nothing_and_an_interrupt_all_jobs(runs: Runs) -> None:
    options = ("--set", f"tiny.pause={PAUSE}", "--engine", "slurm", "--slurm", "time=10", "--jobs", "1")
    lost = runs.start(*options)
    lost.until(lambda: "start" in lost.printed)
    before = queued(runs.folder)
    lost.process.send_signal(signal.SIGHUP)
    assert lost.code() == -signal.SIGHUP
    again = runs.start(*options)
    again.until(lambda: "done" in again.printed)
    assert queued(runs.folder) == before
    again.process.send_signal(signal.SIGTERM)
    assert again.code() == 130
    assert "interrupted: 1 of 2 cells are recorded" in again.printed
    assert not queued(runs.folder)
    assert runs.start("--set", f"tiny.pause={PAUSE}").code() == 0
    assert [record.status for record in runs.records()] == ["ok"] * 2


def test_jobs_that_end_without_records_are_an_error_with_their_own_words(runs: Runs) -> None:
    run = runs.start("--engine", "slurm", "--slurm", "time=10,export=NONE", "--jobs", "1")
    assert run.code() == 2
    assert "all jobs have ended, and 2 cells have no record" in run.printed
    assert "Error" in run.printed.partition("no record")[2]
