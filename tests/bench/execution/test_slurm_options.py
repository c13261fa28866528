"""What does not need a Slurm: options of jobs, and parts of the cells for schedulers that nothing here knows."""

import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.cells import Cell
from bench.datasets.cache import Cache
from bench.errors import UsageError
from bench.execution.order import part_of
from bench.execution.slurm_jobs import SlurmEngine, device_of_jobs, minutes, sbatch_options
from bench.options import RunOptions, resolve
from bench.plan import make_plan
from bench.preparation import prepare
from bench.run import FolderJob


@pytest.fixture
def options(plugin: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    """``tiny`` on two scenarios with three seeds."""
    monkeypatch.syspath_prepend(str(plugin))
    return RunOptions(("tiny",), "parts", seeds=(0, 1, 2), data_root=data_root, out=tmp_path / "run")


@pytest.fixture
def cells(options: RunOptions) -> Sequence[Cell]:
    return make_plan(options, Cache(Path("unused"), enabled=False)).cells


@pytest.fixture
def own_signals() -> Iterator[None]:
    """A job whose end has begun ignores further requests to end; the process of the tests does not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("parts", range(1, 7))
def test_parts_are_together_all_cells_exactly_once(cells: Sequence[Cell], parts: int) -> None:
    taken = [part_of(cells, f"{number}/{parts}") for number in range(1, parts + 1)]
    assert [cell for part in taken for cell in part] == list(cells)
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_parts_of_scenarios_share_none(cells: Sequence[Cell]) -> None:
    assert [{cell.scenario.name for cell in part_of(cells, f"{number}/2")} for number in (1, 2)] == [{"bolt"}, {"nut"}]


def test_a_part_is_of_all_cells_whatever_has_run_before(options: RunOptions) -> None:
    prepared = prepare(resolve(RunOptions, {**vars(options), "shard": "2/3"}, "bench run"))
    assert (
        [cell.key for cell in prepared.cells] == list(prepared.due) == [cell.key for cell in prepared.plan.cells[2:4]]
    )


@pytest.mark.parametrize("shard", ["3/2", "1/7"])
def test_a_part_that_does_not_exist_is_refused(cells: Sequence[Cell], shard: str) -> None:
    with pytest.raises(UsageError, match=rf"no part {shard} of 6 cells\n  Allowed: --shard 1/n to n/n, with n from 1"):
        part_of(cells, shard)


@pytest.mark.parametrize("shard", ["0/2", "2", "1/0", "a/b", "1/2/3"])
def test_what_is_no_part_is_refused(shard: str) -> None:
    with pytest.raises(UsageError, match="--shard does not take"):
        resolve(RunOptions, {"methods": "tiny", "shard": shard}, "bench run")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("90", 90), ("1:30", 2), ("04:00:00", 240), ("0:00:01", 1), ("2-12", 3600), ("1-1:30", 1530), ("1-0:0:1", 1441)],
)
def test_a_time_limit_is_whole_minutes(limit: str, expected: int) -> None:
    assert minutes(limit) == expected


@pytest.mark.parametrize("limit", ["", "4h", "1:2:3:4", "-1", "1-", True])
def test_a_time_limit_of_no_known_form_is_refused(limit: str | bool) -> None:
    with pytest.raises(UsageError, match="time=MINUTES"):
        minutes(limit)


def test_options_of_sbatch_are_taken_as_they_are() -> None:
    settings = resolve(RunOptions, {"methods": "tiny", "slurm": "mem=16G,nodelist=n[1,3],--exclusive"}, "").slurm
    assert sbatch_options(settings) == {"mem": "16G", "nodelist": "n[1,3]", "exclusive": True}
    with pytest.raises(UsageError, match="--slurm does not take '=3'"):
        sbatch_options(["=3"])


@pytest.mark.parametrize(
    ("settings", "device"),
    [(["gpus-per-node=1"], "cuda"), (["gres=gpu:a100:2"], "cuda"), (["partition=gpu"], "cpu"), (["gpus=1"], "cuda")],
)
def test_jobs_run_on_the_gpus_that_they_ask_for(settings: list[str], device: str) -> None:
    assert device_of_jobs(settings) == device


def test_the_missing_extra_and_a_missing_slurm_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "submitit", None)
        with pytest.raises(UsageError, match=r"pip install 'anomaly-bench\[slurm\]'"):
            SlurmEngine(tmp_path, lambda: None, 1, ["time=1"])
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no Slurm here: sbatch"):
        SlurmEngine(tmp_path, lambda: None, 1, ["time=1"])


def test_options_of_jobs_without_jobs_are_refused(options: RunOptions) -> None:
    with pytest.raises(UsageError, match="Add --engine slurm"):
        prepare(resolve(RunOptions, {**vars(options), "jobs": 2}, "bench run"))


def test_the_machine_that_submits_times_nothing(options: RunOptions) -> None:
    with pytest.raises(UsageError, match="run bench time with the run folder in a job of its own"):
        prepare(resolve(RunOptions, {**vars(options), "engine": "slurm", "time": True}, "bench run"))


def test_a_job_on_a_node_with_other_cells_says_so(options: RunOptions) -> None:
    with pytest.raises(UsageError, match="1 of 1 cells do not exist on this node"):
        FolderJob(options, "a test", {"no key": None})()


@pytest.mark.usefixtures("own_signals")
def test_a_job_that_gets_nothing_done_is_not_requeued_for_ever(options: RunOptions) -> None:
    pytest.importorskip("submitit")
    job = FolderJob(options, "a test", {})
    for fruitless in (1, 2):
        submission = job.checkpoint()
        assert submission is not None
        job = submission.function
        assert job.fruitless == fruitless
    assert job.checkpoint() is None
    job.recorded = 1
    submission = job.checkpoint()
    assert submission is not None
    assert submission.function.fruitless == 0
