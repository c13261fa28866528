"""Jobs of Slurm that divide the cells of a run folder among themselves, and whoever has submitted them and waits.

Which jobs belong to a run folder is asked of Slurm, as their scripts lie in it: nothing is to be kept for a run that
loses its connection and continues.
"""

import contextlib
import io
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from bench.errors import UsageError
from bench.execution.events import Ended, Event, Interrupted, Started
from bench.execution.local import log_tail
from bench.execution.supply import LOOK_AGAIN, Supply
from bench.machine.devices import Slot
from bench.options import RunOptions

MOST_JOBS = 20
"""So many jobs are submitted unless the user says how many."""
_QUEUE_INTERVAL = 10.0
"""Seconds between two questions to Slurm, which answers all users of a cluster."""
_TIMEOUTS = 1000
"""How often a job may reach its walltime; one that gets nothing done ends much earlier by itself."""
# srun does not take it over from sbatch any more.
_SETUP = '[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'


class SlurmEngine:
    """Submits jobs and follows what they record; an :class:`bench.execution.protocol.Engine`.

    Args:
        root: The run folder, on a file system that the nodes share.
        job: What each job does: it can be pickled, and has the method ``checkpoint`` that submitit calls when the
            walltime is nearly over.
        jobs: How many to submit.
        settings: ``NAME=VALUE`` each, options of sbatch.

    Raises:
        UsageError: submitit or Slurm is missing, or the settings make no sense.
    """

    def __init__(self, root: Path, job: Callable[[], None], jobs: int, settings: Sequence[str]) -> None:
        self._folder = root.resolve() / "slurm"
        self._job = job
        self._jobs = jobs
        self._options = sbatch_options(settings)
        self._minutes = minutes(self._options.pop("time", ""))
        self._submitted = False
        self._asked = 0.0
        self._was_queued = True
        self._shown: dict[str, tuple[int, Slot]] = {}
        _check_installed()

    def run(self, supply: Supply) -> Generator[Event]:
        """Submit jobs, unless those of an earlier command are still queued, and yield what they record.

        When the iterator is closed or an exception passes through, the jobs are cancelled.

        Raises:
            ResultError: A record cannot be read.
            UsageError: Slurm refused the jobs, all have ended before the cells were recorded, or they cannot be
                cancelled.
        """
        try:
            yield from self._follow(supply)
        except BaseException:
            self._cancel()
            raise
        # Those that still wait would find nothing to do; those that run are about to end.
        self._scancel(self._queued(), "--state=PENDING")

    def _follow(self, supply: Supply) -> Iterator[Event]:
        if not self._queued():
            self._submit()
        while True:
            are_queued = self._are_queued()
            yield from self._events(supply)
            if not supply.is_open:
                return
            if not are_queued and self._submitted:
                raise self._ended_early(supply)
            if not are_queued:
                self._submit()
            time.sleep(LOOK_AGAIN)

    def _events(self, supply: Supply) -> Iterator[Event]:
        """What has happened to the cells since the last look."""
        for cell, claim, holder in supply.claimed_elsewhere():
            number, slot = self._shown.get(cell.key, (0, None))
            if claim.number == number:
                continue
            if slot is not None:
                reason = claim.interrupted[-1] if claim.interrupted else "its job has ended"
                yield Interrupted(slot, cell, reason)
            slot = Slot(0, holder.host, 0)
            self._shown[cell.key] = claim.number, slot
            yield Started(slot, cell)
        for ended in supply.watch():
            _, slot = self._shown.get(ended.cell.key, (0, Slot(0, "slurm", 0)))
            yield Ended(slot, ended.cell, ended.record)

    def _submit(self) -> None:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        self._folder.mkdir(parents=True, exist_ok=True)
        executor = SlurmExecutor(self._folder, max_num_timeout=_TIMEOUTS)
        executor.update_parameters(
            job_name="bench", time=self._minutes, setup=[_SETUP], additional_parameters=self._options
        )
        before = set(self._folder.iterdir())
        try:
            # It prints the words of sbatch, too, which are in the exception.
            with contextlib.redirect_stderr(io.StringIO()), executor.batch():
                for _ in range(self._jobs):
                    executor.submit(self._job)
        except (FailedJobError, FailedSubmissionError) as error:
            for file in set(self._folder.iterdir()) - before:
                file.unlink()
            raise UsageError(f"Slurm refused the jobs: {error}\n  --slurm takes the options of sbatch.") from error
        self._submitted = self._was_queued = True
        self._asked = time.monotonic()

    def _are_queued(self) -> bool:
        """Whether there are jobs that wait or run; two answers in a row have to say that there are none."""
        if time.monotonic() - self._asked < _QUEUE_INTERVAL:
            return True
        self._asked = time.monotonic()
        before, queued = self._was_queued, self._queued()
        self._was_queued = queued is None or bool(queued)  # not reached: it may be back in a moment
        return before or self._was_queued

    def _queued(self) -> set[str] | None:
        """The arrays of this run folder that wait or run; ``None`` if Slurm does not answer."""
        command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%F %o"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            return None
        jobs = (line.split(maxsplit=1) for line in answer.stdout.splitlines())
        return {job[0] for job in jobs if len(job) == 2 and Path(job[1].strip()).parent == self._folder}

    def _cancel(self) -> None:
        """End all jobs, and keep what is done.

        Raises:
            UsageError: Slurm does not do it.
        """
        queued = self._queued()
        if queued is None:
            words, remedy = "squeue does not answer", f"scancel; their scripts lie in {self._folder}"
        elif words := self._scancel(queued):
            remedy = " ".join(("scancel", *sorted(queued)))
        if queued is None or words:
            raise UsageError(f"the jobs cannot be cancelled, and go on: {words}\n  Cancel them later with {remedy}.")

    def _scancel(self, jobs: set[str] | None, *options: str) -> str:
        """Cancel jobs; return why that did not work, if it did not."""
        if not jobs:
            return ""
        command = ["scancel", *options, *sorted(jobs)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()

    def _ended_early(self, supply: Supply) -> UsageError:
        left = [cell.label for cell in supply.unclaimed()]
        logs = sorted(self._folder.glob("*_log.err"), key=lambda log: log.stat().st_mtime)
        tails = [tail for log in logs if (tail := log_tail(log, 0))]
        return UsageError(
            f"all jobs have ended, and {len(left)} cells have no record, such as {left[0]}\n"
            f"{tails[-1] if tails else 'They have printed no error.'}\n"
            f"  The logs of the jobs lie in {self._folder}. The same command continues."
        )


def check_slurm(options: RunOptions) -> None:
    """Make sure, without Slurm, that its options go with the others.

    Raises:
        UsageError: They do not.
    """
    if options.engine != "slurm":
        if options.slurm or options.jobs is not None:
            raise UsageError("--slurm and --jobs are for jobs of Slurm\n  Add --engine slurm, or leave them out.")
    elif options.time:
        raise UsageError(
            "--time would time detectors on the machine that submits the jobs\n"
            "  Leave it out, add --keep-models, and run bench time with the run folder in a job of its own."
        )


def sbatch_options(settings: Sequence[str]) -> dict[str, str | bool]:
    """Take ``NAME=VALUE`` or, for an option without value, ``NAME``; what they are called is up to sbatch.

    Raises:
        UsageError: One has no name.
    """
    options: dict[str, str | bool] = {}
    for setting in settings:
        name, given, value = setting.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not name:
            raise UsageError(f"--slurm does not take {setting!r}\n  Allowed: NAME=VALUE,…, options of sbatch.")
        options[name] = value.strip() if given else True
    return options


def device_of_jobs(settings: Sequence[str]) -> str:
    """``cuda`` if jobs with these settings get GPUs, else ``cpu``: where they are submitted there may be none."""
    options = sbatch_options(settings)
    by_name = any(name.startswith("gpus") for name in options)
    return "cuda" if by_name or "gpu" in f"{options.get('gres')} {options.get('tres_per_task')}" else "cpu"


def minutes(limit: str | bool) -> int:
    """A time limit as sbatch takes it, in minutes, rounded up.

    Raises:
        UsageError: There is none, or it is of no form that sbatch knows.
    """
    days, dash, rest = str(limit).rpartition("-")
    parts = rest.split(":")
    if not all(part.isdecimal() for part in [*parts, days or "0"]) or len(parts) > 3 or (dash and not days):
        seen = f"does not take time={limit}" if limit else "has no time: how long a job may take"
        raise UsageError(
            f"--slurm {seen}\n  Allowed: time=MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS:MINUTES:SECONDS, "
            "enough for the longest cell."
        )
    numbers = [int(part) for part in parts]
    if not dash and len(numbers) < 3:
        numbers.insert(0, 0)
    hours, whole, seconds = (*numbers, 0, 0)[:3]
    return (int(days or 0) * 24 + hours) * 60 + whole + (seconds > 0)


def _check_installed() -> None:
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "--engine slurm submits by the package submitit, which is not installed\n"
            "  pip install 'anomaly-bench[slurm]'"
        ) from error
    for program in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise UsageError(
                f"there is no Slurm here: {program} is not among the programs of $PATH\n"
                "  Run the command where jobs are submitted, or leave --engine slurm out."
            )
