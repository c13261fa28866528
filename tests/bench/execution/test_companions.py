"""Runs that share a folder have the same images under the same names, and on request the same packages."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cells import Cell
from bench.datasets.cache import Cache
from bench.errors import UsageError
from bench.execution.claims import Claims, Holder, Holders
from bench.execution.companions import check_companions, fingerprints, versions
from bench.execution.supply import Supply
from bench.machine.devices import Slot
from bench.options import RunOptions
from bench.plan import make_plan
from bench.recording import cell_fields, record_failure
from results.errors import ResultError
from results.record import Failure
from results.store import RunStore

HERE = replace(Holder.this_process(), host="here", data={"parts/bolt": "a" * 64}, packages={"torch": "2.13.0"})
THERE = replace(HERE, id="other", host="there", packages={"torch": "2.13.0", "faiss-cpu": "1.15"})


@pytest.fixture
def cells(plugin: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[Cell]:
    """``tiny`` on ``parts/bolt``."""
    monkeypatch.syspath_prepend(str(plugin))
    options = RunOptions(("tiny",), "parts/bolt", data_root=data_root)
    return make_plan(options, Cache(tmp_path / "cache", enabled=False)).cells


def test_runs_with_the_same_data_may_share_a_folder(tmp_path: Path) -> None:
    other = replace(THERE, data={**THERE.data, "parts/nut": "b" * 64})
    check_companions(HERE, [THERE, other], tmp_path, strict=True)


def test_other_images_under_the_same_name_are_refused(tmp_path: Path) -> None:
    other = replace(THERE, data={"parts/bolt": "b" * 64})
    message = r"parts/bolt has other files on there than here \(here\): fingerprint b{12} there, a{12} here"
    with pytest.raises(UsageError, match=message):
        check_companions(HERE, [other], tmp_path, strict=False)


def test_other_packages_are_refused_on_request(tmp_path: Path) -> None:
    other = replace(THERE, packages={"torch": "2.6.0", "numpy": "1"})
    check_companions(HERE, [other], tmp_path, strict=False)
    with pytest.raises(UsageError, match=r"on there has other versions of packages: torch 2\.6\.0 \(here 2\.13\.0\)"):
        check_companions(HERE, [other], tmp_path, strict=True)


def test_packages_of_existing_records_count_too(cells: Sequence[Cell], tmp_path: Path) -> None:
    fields = cell_fields(cells[0], Slot(0, "cpu", 1), "a test")
    record_failure(RunStore(tmp_path).draft(cells[0].id), fields, Failure(kind="error", reason="no"))
    ours = replace(HERE, packages=versions())
    check_companions(ours, [], tmp_path, strict=True)
    newer = replace(ours, packages={**versions(), "python": "4.0"})
    with pytest.raises(UsageError, match=r"the record of tiny on bolt has other versions of packages: python 3.*4\.0"):
        check_companions(newer, [], tmp_path, strict=True)


def test_a_fingerprint_is_that_of_the_scenarios_files(cells: Sequence[Cell]) -> None:
    assert fingerprints(cells) == {"parts/bolt": cells[0].scenario.fingerprint}


def test_a_run_learns_of_others_that_are_alive(tmp_path: Path) -> None:
    with Claims(tmp_path, HERE) as claims:
        Holders(tmp_path).write(replace(THERE, system="another kernel"))
        Holders(tmp_path).write(replace(THERE, id="dead", begun=1.0))
        assert [(other.host, other.data) for other in claims.others()] == [("there", THERE.data)]


def test_a_record_that_was_copied_by_half_is_named(cells: Sequence[Cell], tmp_path: Path) -> None:
    folder = RunStore(tmp_path).cell_directory(cells[0].id)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text('{"schema_version": 5, "key": "')
    with Claims(tmp_path, HERE) as claims, pytest.raises(ResultError, match=r"record\.json is damaged .* run again"):
        Supply([cells], {}, claims, RunStore(tmp_path)).take()
