"""The protocol between a run and where its cells run: cells go in, events come out."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.cells import Cell
from bench.datasets.cache import Cache
from bench.execution.local import LocalWorkers
from bench.execution.protocol import CellTask, Ended, Event, Executor, Progressed, Started
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


def workers(root: Path, time_limit: float | None = None) -> Executor:
    (root / "logs").mkdir(parents=True)
    task = CellTask(root / "run", "a test", Cache(root / "cache", enabled=False), keep_maps=True)
    return LocalWorkers([Slot(0, "cpu", 1)], root / "logs", task, time_limit)


@pytest.mark.slow
def test_a_cell_is_on_disk_when_its_end_is_heard_of_and_a_death_is_one_too(
    cells: Sequence[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY", "1=kill")
    store = RunStore(tmp_path / "run")
    seen: dict[int, list[Event]] = {0: [], 1: [], 2: []}
    for event in workers(tmp_path).run(cells):
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
    end = list(workers(tmp_path, time_limit=4).run(cells[:1]))[-1]
    assert isinstance(end, Ended)
    assert end.record.failure is not None
    assert end.record.failure.kind == "killed"
    assert end.record.failure.reason == "it was not done after the 4 s of --time-limit"
    assert RunStore(tmp_path / "run").find(end.record.key) == end.record


@pytest.mark.slow
def test_a_record_that_cannot_be_written_ends_everything(cells: Sequence[Cell], tmp_path: Path) -> None:
    (tmp_path / "run").touch()  # where the folder should be
    heard: list[Event] = []
    with pytest.raises(ResultError, match=r"cannot write .*run/cells"):
        heard.extend(workers(tmp_path).run(cells))
    assert not any(isinstance(event, Ended) for event in heard)
