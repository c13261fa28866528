"""How far a run folder is can be told from the folder alone, while runs go on in it and after they have died."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cli_support import Command

from bench.cells import Cell
from bench.datasets.cache import Cache
from bench.execution.claims import Claims, Holder, Holders
from bench.machine.devices import Slot
from bench.options import RunOptions
from bench.plan import make_plan
from bench.recording import cell_fields, record_failure
from bench.run_folder import write_plan
from bench.status import StatusReader
from results.record import Failure
from results.store import RunStore


@pytest.fixture
def cells(plugin: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[Cell]:
    """``tiny`` on ``parts`` with the seeds 0 and 1, planned in the run folder."""
    monkeypatch.syspath_prepend(str(plugin))
    options = RunOptions(("tiny",), "parts", seeds=(0, 1), data_root=data_root)
    planned = make_plan(options, Cache(tmp_path / "cache", enabled=False)).cells
    write_plan(tmp_path / "run", "bench run", planned)
    return planned


@pytest.fixture
def claims(cells: Sequence[Cell], tmp_path: Path) -> Iterator[Claims]:
    with Claims(tmp_path / "run", Holder.this_process()) as ours:
        yield ours


def fail(root: Path, cell: Cell) -> None:
    fields = cell_fields(cell, Slot(0, "cpu", 1), "a test")
    record_failure(RunStore(root).draft(cell.id), fields, Failure(kind="memory", reason="no"))


def test_cells_are_counted_by_what_has_become_of_them(cells: Sequence[Cell], claims: Claims, tmp_path: Path) -> None:
    run = tmp_path / "run"
    reader = StatusReader(run, 60)
    assert (reader.read().planned, reader.read().waiting) == (4, 4)
    first = claims.take(cells[0].id.folder)
    assert first is not None
    assert claims.take(cells[1].id.folder)
    now = reader.read()
    assert {one.cell.label for one in now.alive} == {cells[0].label, cells[1].label}
    assert (now.waiting, len(now.holders), now.left) == (2, 1, None)
    fail(run, cells[0])
    claims.end(first)
    now = reader.read()
    assert (now.done, now.failed, len(now.running), now.waiting) == (0, {"memory": 1}, 1, 2)


def test_what_a_dead_run_has_left_is_told(cells: Sequence[Cell], claims: Claims, tmp_path: Path) -> None:
    dead = replace(Holder.this_process(), begun=1.0)
    with Claims(tmp_path / "run", dead) as theirs:
        assert theirs.take(cells[0].id.folder)
        (left,) = StatusReader(tmp_path / "run", 60).read().running
    assert left.gone.endswith("which has died")
    (ended,) = StatusReader(tmp_path / "run", 60).read().running
    assert ended.gone == "a run that has ended"


def test_a_silent_run_is_told_by_who_watches(cells: Sequence[Cell], claims: Claims, tmp_path: Path) -> None:
    silent = replace(Holder.this_process(), system="another kernel", host="far")
    with Claims(tmp_path / "run", silent, silence=1000) as theirs:
        assert theirs.take(cells[0].id.folder)
        reader = StatusReader(tmp_path / "run", 0.0)
        assert reader.read().alive
        assert not reader.read().alive


def test_records_of_other_commands_are_counted_apart(cells: Sequence[Cell], claims: Claims, tmp_path: Path) -> None:
    fail(tmp_path / "run", cells[0])
    write_plan(tmp_path / "run", "another", cells[1:])
    now = StatusReader(tmp_path / "run", 60).read()
    assert (now.planned, now.failed, now.others) == (3, {}, 1)


@pytest.mark.slow
def test_the_command_shows_it(bench: Command, data_root: Path, tmp_path: Path) -> None:
    run = ("run", "--methods", "tiny", "--datasets", "parts", "--data-root", data_root, "--out", "out")
    nothing = bench("status", "out")
    assert nothing.returncode == 2
    assert "out is no run folder" in nothing.stderr
    assert bench(*run, TINY="0=error").returncode == 3
    shown: subprocess.CompletedProcess[str] = bench("status", "out", "--watch")
    assert shown.returncode == 0, shown.stderr
    assert "0 of 2 cells done, 2 failed (2 error), 0 running, 0 waiting" in shown.stdout
    document = json.loads(bench("status", "out", "--json").stdout)
    assert (document["planned"], document["failed"], document["runs"]) == (2, {"error": 2}, [])
    assert not Holders(tmp_path / "out").all()


@pytest.mark.slow
def test_a_plan_knows_what_has_run_before(bench: Command, data_root: Path) -> None:
    flags = ("--methods", "tiny", "--datasets", "parts", "--data-root", data_root, "--out", "out")
    before = bench("plan", *flags)
    assert before.returncode == 0, before.stderr
    assert "no record of it" in before.stdout
    assert "nothing is known of tiny" in before.stdout
    assert bench("run", *flags[:3], "parts/bolt", *flags[4:], "--train-scale", 0.5).returncode == 0
    document = json.loads(bench("plan", *flags, "--json").stdout)
    (method,) = document["methods"]
    assert (method["method"], method["cells"], method["training_steps"]) == ("tiny", 2, 40)
    assert method["basis"] == "other scenarios"
    assert 0 < method["least"] <= method["seconds"] <= method["greatest"] < 60
    assert method["peak_memory"] > 10**8
    assert document["elapsed_seconds"] == pytest.approx(method["seconds"])
    assert document["unknown"] == []
    assert 0 < document["cached_bytes"] <= document["cache_bytes"] == 26 * 3 * 32 * 32
    after = bench("plan", *flags)
    assert "2 of 2 cells to run, 40 training steps, about 0:0" in after.stdout
