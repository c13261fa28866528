"""The protocol between a run and where its cells run: cells go in, events come out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.cells import Cell
from bench.datasets.cache import Cache
from bench.execution.claims import Claims, Holder
from bench.execution.events import Ended, Event, Interrupted, Progressed, Started
from bench.execution.local import NO_LIMITS, CellLimits, LocalWorkers
from bench.execution.protocol import CellTask
from bench.execution.supply import Supply
from bench.machine.devices import Slot
from bench.options import RunOptions
from bench.plan import make_plan
from results.errors import ResultError
from results.store import RunStore


@pytest.fixture
def cells(plugin: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[Cell]:
    """``tiny`` on ``parts/bolt`` with the seeds 0, 1 and 2."""
    monkeypatch.syspath_prepend(str(plugin))
    options = RunOptions(("tiny",), "parts/bolt", seeds=(0, 1, 2), data_root=data_root)
    return make_plan(options, Cache(tmp_path / "cache", enabled=False)).cells


def run(root: Path, cells: Sequence[Cell], limits: CellLimits = NO_LIMITS, retries: int = 0) -> Iterator[Event]:
    """Run the cells in one worker, in the run folder ``root / "run"``."""
    (root / "logs").mkdir(parents=True)
    task = CellTask(root / "run", "a test", Cache(root / "cache", enabled=False), keep_maps=True)
    with Claims(root / "run", Holder.this_process()) as claims:
        supply = Supply([cells], {}, claims, RunStore(root / "run"), retries)
        yield from LocalWorkers([Slot(0, "cpu", 1)], root / "logs", task, limits).run(supply)


@pytest.mark.slow
def test_a_cell_is_on_disk_when_its_end_is_heard_of_and_a_death_is_one_too(
    cells: Sequence[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY", "1=kill")
    store = RunStore(tmp_path / "run")
    seen: dict[int, list[Event]] = {0: [], 1: [], 2: []}
    for event in run(tmp_path, cells):
        seen[event.cell.seed].append(event)
        if isinstance(event, Ended):
            assert store.find(event.cell.key) == event.record
    for events in seen.values():
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], Ended)
        assert all(isinstance(event, Progressed) for event in events[1:-1])
        assert events[1:-1]
    failures = [record.failure and record.failure.kind for record in store.records()]
    assert failures == [None, "killed", None]
    assert [path.parent.name.split("-")[-2] for path in sorted(tmp_path.glob("run/cells/*/maps.npz"))] == ["s0", "s2"]


@pytest.mark.slow
def test_a_cell_that_hangs_is_given_up(cells: Sequence[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY", "0=hang")
    end = list(run(tmp_path, cells[:1], CellLimits(seconds=4)))[-1]
    assert isinstance(end, Ended)
    assert end.record.failure is not None
    assert end.record.failure.kind == "killed"
    assert end.record.failure.reason == "it was not done after the 4 s of --cell-timeout"
    assert RunStore(tmp_path / "run").find(end.record.key) == end.record


@pytest.mark.slow
def test_a_record_that_cannot_be_written_ends_everything(cells: Sequence[Cell], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/cells").touch()  # where the folder should be
    heard: list[Event] = []
    with pytest.raises(ResultError, match=r"cannot write .*run/cells"):
        heard.extend(run(tmp_path, cells))
    assert not any(isinstance(event, Ended) for event in heard)


@pytest.mark.slow
def test_a_cell_that_takes_too_much_memory_is_given_up(
    cells: Sequence[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY", "0=hang")
    end = list(run(tmp_path, cells[:1], CellLimits(memory=1_000_000)))[-1]
    assert isinstance(end, Ended)
    assert end.record.failure is not None
    assert end.record.failure.kind == "memory"
    assert "--cell-memory is 0.001" in end.record.failure.reason


@pytest.mark.slow
def test_a_cell_whose_process_dies_is_run_again_as_often_as_asked(
    cells: Sequence[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY", "0=kill 1=error")
    events = list(run(tmp_path, cells[:2], retries=2))
    again = [event for event in events if isinstance(event, Interrupted)]
    assert [event.cell.seed for event in again] == [0, 0]
    killed, failed = (event.record for event in events if isinstance(event, Ended))
    if killed.seed:
        killed, failed = failed, killed
    assert killed.failure is not None
    assert killed.failure.kind == "killed"
    assert killed.interrupted == [event.reason for event in again]
    assert failed.failure is not None
    assert failed.failure.kind == "error"
    assert failed.interrupted == []
