"""Cells on a real Ray cluster: two nodes on this machine."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench.cells import Cell
from bench.datasets.cache import Cache
from bench.execution.claims import Claims, Holder
from bench.execution.events import Ended, Event, Interrupted, Progressed, Started
from bench.execution.local import NO_LIMITS, LocalWorkers
from bench.execution.protocol import CellTask, Engine
from bench.execution.ray_cluster import RayEngine
from bench.execution.supply import Supply
from bench.machine.devices import Slot
from bench.models import kept_models
from bench.options import RunOptions
from bench.plan import make_plan
from results.record import Record
from results.store import RunStore

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("default")]
"""Ray has warnings of its own."""


@pytest.fixture
def cluster(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A node with one CPU, to which tests add others; they find the detector ``tiny`` by the run's own path."""
    from ray.cluster_utils import Cluster

    repository = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(repository), os.environ.get("PYTHONPATH")))))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 otherwise: on a busy machine they would hardly run
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("TINY", "5=kill 6=hang")
    monkeypatch.syspath_prepend(str(plugin))
    monkeypatch.chdir(tmp_path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def planned(data_root: Path, **options: Any) -> Sequence[Cell]:
    chosen = {"methods": ("tiny",), "datasets": "parts/nut", "device": "cpu", **options}
    return make_plan(RunOptions(data_root=data_root, **chosen), Cache(Path("cache"), enabled=False)).cells


def task_of(root: Path, **more: Any) -> CellTask:
    return CellTask(root, "a test", Cache(root / "cache", enabled=False), **more)


def on(cluster: Any, task: CellTask) -> RayEngine:
    return RayEngine(cluster.address, {"num_cpus": 1}, "cpu", task, NO_LIMITS)


def events(engine: Engine, cells: Sequence[Cell], root: Path) -> Iterator[Event]:
    with Claims(root, Holder.this_process()) as claims:
        yield from engine.run(Supply([cells], {}, claims, RunStore(root), retries=1))


def ends(seen: Sequence[Event]) -> dict[int, Record]:
    return {event.cell.seed: event.record for event in seen if isinstance(event, Ended)}


def test_results_are_those_of_local_workers_and_failures_name_the_node(
    cluster: Any, data_root: Path, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    cells = planned(data_root, seeds=(0, 1, 2, 5))
    (tmp_path / "logs").mkdir()
    local = LocalWorkers([Slot(0, "cpu", 1)], tmp_path / "logs", task_of(tmp_path / "local"))
    expected = ends(list(events(local, cells[:3], tmp_path / "local")))

    task = task_of(tmp_path / "run", keep_maps=True, keep_models=True)
    seen = list(events(on(cluster, task), cells, tmp_path / "run"))
    records, store = ends(seen), RunStore(tmp_path / "run")
    assert {record.seed: record for record in store.records()} == records
    for seed, record in expected.items():
        assert (records[seed].metrics, records[seed].images) == (record.metrics, record.images)
        files = {path.name for path in store.cell_directory(record).iterdir()}
        assert {"record.json", "maps.npz", "model.safetensors"} <= files
    failure = records[5].failure
    assert failure is not None
    assert (failure.kind, failure.log_tail) == ("killed", "about to fit")
    assert "SIGKILL" in failure.reason
    assert "(on node " in failure.reason
    assert all(isinstance(event, Started | Progressed | Ended) for event in seen)
    assert not list(tmp_path.glob("run/.work/drafts/*"))

    again = task_of(tmp_path / "again", kept=kept_models(tmp_path / "run"))
    record = ends(list(events(on(cluster, again), cells[:1], tmp_path / "again")))[0]
    assert record.metrics == expected[0].metrics
    assert record.implementation["fit"].startswith("kept model of ")


def test_data_that_the_node_does_not_have_fail_the_cell_which_says_where(
    cluster: Any, data_root: Path, tmp_path: Path
) -> None:
    cells = planned(data_root)
    image = cells[0].scenario.train[0]
    content = image.read_bytes()
    image.unlink()
    try:
        record = ends(list(events(on(cluster, task_of(tmp_path / "run")), cells, tmp_path / "run")))[0]
    finally:
        image.write_bytes(content)
    assert record.failure is not None
    assert record.failure.kind == "error"
    assert str(image) in record.failure.reason
    assert "(on node " in record.failure.reason
    assert "at the same paths on every node" in record.failure.log_tail


def test_cells_of_a_lost_node_run_once_more_elsewhere(cluster: Any, data_root: Path, tmp_path: Path) -> None:
    second = cluster.add_node(num_cpus=1)
    cells = planned(data_root, seeds=(0, 1), set={"tiny": {"pause": 0.5}})
    begun: set[int] = set()
    seen: list[Event] = []
    for event in events(on(cluster, task_of(tmp_path / "run")), cells, tmp_path / "run"):
        seen.append(event)
        if isinstance(event, Progressed) and event.progress.stage == "train":
            begun.add(event.cell.seed)
        if begun == {0, 1} and second is not None:
            cluster.remove_node(second, allow_graceful=False)
            second = None
    (interrupted,) = [event for event in seen if isinstance(event, Interrupted)]
    records = ends(seen)
    assert "was lost" in interrupted.reason
    assert records.pop(interrupted.cell.seed).interrupted == [interrupted.reason]
    (other,) = records.values()
    assert other.interrupted == []
    assert [record.status for record in RunStore(tmp_path / "run").records()] == ["ok", "ok"]


def test_what_runs_is_cancelled_when_the_events_are_no_longer_wanted(
    cluster: Any, data_root: Path, tmp_path: Path
) -> None:
    ray.init(cluster.address, log_to_driver=False)
    cells = planned(data_root, seeds=(6, 7))
    with closing(events(on(cluster, task_of(tmp_path / "run")), cells, tmp_path / "run")) as running:
        for event in running:
            if isinstance(event, Progressed) and event.progress.stage == "fit":
                break
    while ray.available_resources().get("CPU") != 1:
        time.sleep(0.1)
    assert not RunStore(tmp_path / "run").records()
    assert not Claims(tmp_path / "run", Holder.this_process()).others()
