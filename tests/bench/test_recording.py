"""What becomes a failure, and what a failed record leaves of earlier attempts."""

from pathlib import Path

import pytest

from bench.datasets.scenario import Scenario
from bench.machine.devices import Slot
from bench.machine.environment import environment, package_versions
from bench.models import DESCRIPTION_FILE
from bench.recording import data_of, failure_of, record_failure
from methods.errors import WeightsError
from results.record import Collection, Failure
from results.regions import REGIONS_FILE
from results.store import CellId, RunStore


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (MemoryError(), "memory", "out of memory: no message"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory", "out of memory: Default"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "memory", "out of memory: CUDA"),
        (WeightsError("no file\n  get it"), "error", "no file"),
        (WeightsError(), "error", "WeightsError"),
        (KeyError("x"), "bug", "KeyError: 'x'"),
    ],
)
def test_kinds_of_failures(error: Exception, kind: str, reason: str) -> None:
    failure = failure_of(error)
    assert failure.kind == kind
    assert failure.reason.startswith(reason)


def test_a_failed_record_drops_the_arrays_of_earlier_attempts_and_keeps_a_model(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    cell = CellId("m", "parts", "bolt", 0, "k" * 64)
    folder = store.cell_directory(cell)
    folder.mkdir(parents=True)
    for name in (REGIONS_FILE, DESCRIPTION_FILE):
        (folder / name).write_text("[]")
    fields = {
        "key": "k" * 64,
        "method": "m",
        "title": "M",
        "source": "nobody",
        "collection": Collection(name="parts", title="Parts"),
        "scenario": "bolt",
        "seed": 0,
        "config": {},
        "environment": environment(Slot(0, "cpu", 1)),
        "command": "bench run",
    }
    record = record_failure(store.draft(cell), fields, Failure(kind="error", reason="no"))
    assert store.records() == [record]
    assert {path.name for path in folder.iterdir()} == {"record.json", DESCRIPTION_FILE}


def test_an_environment_names_what_this_package_requires_and_what_a_method_adds() -> None:
    versions = environment(Slot(0, "cpu", 1), ("pytest",)).packages
    assert {"torch", "numba", "pillow", "timm", "pytest"} <= set(versions)
    assert not {"pytest", "mypy", "anomalib"} & set(package_versions())


def test_what_became_of_files_is_recorded() -> None:
    scenario = Scenario(Collection(name="parts", title="Parts"), "bolt", (), (), (), notes=("2 files left out",))
    assert data_of(scenario, None, None).notes == ["2 files left out"]
