"""Cells are handed out once, scenario by scenario, also among runs that share a folder."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.cells import Cell
from bench.datasets.cache import Cache
from bench.execution.claims import Claims, Holder
from bench.execution.order import groups_in_order
from bench.execution.supply import Supply
from bench.machine.devices import Slot
from bench.options import RunOptions
from bench.plan import make_plan
from bench.recording import cell_fields, record_failure
from results.record import Failure, Record
from results.store import RunStore

DEATH = Failure(kind="killed", reason="the worker process was ended by SIGKILL")


@pytest.fixture
def cells(plugin: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sequence[Cell]:
    """``tiny`` on ``parts/bolt`` and ``parts/nut`` with the seeds 0, 1 and 2."""
    monkeypatch.syspath_prepend(str(plugin))
    options = RunOptions(("tiny",), "parts", seeds=(0, 1, 2), data_root=data_root)
    return make_plan(options, Cache(tmp_path / "cache", enabled=False)).cells


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[Claims]:
    with Claims(tmp_path, Holder.this_process()) as ours:
        yield ours


@pytest.fixture
def of_another(tmp_path: Path) -> Iterator[Claims]:
    with Claims(tmp_path, Holder.this_process()) as theirs:
        yield theirs


def record(store: RunStore, cell: Cell) -> Record:
    """Record a cell as some run does."""
    return record_failure(store.draft(cell.id), cell_fields(cell, Slot(0, "cpu", 1), "a test"), DEATH)


def groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    return groups_in_order(cells, lambda _: 1.0, 1)


def test_every_cell_is_handed_out_once(cells: Sequence[Cell], claims: Claims, tmp_path: Path) -> None:
    supply = Supply(groups(cells), {}, claims, RunStore(tmp_path))
    taken = []
    while assignment := supply.take():
        taken.append(assignment.cell.key)
        supply.ended(assignment)
    assert taken == [cell.key for cell in cells]
    assert not supply.is_open


def test_two_runs_begin_with_different_scenarios_and_divide_the_rest(
    cells: Sequence[Cell], claims: Claims, of_another: Claims, tmp_path: Path
) -> None:
    store = RunStore(tmp_path)
    first, second = (Supply(groups(cells), {}, whose, store) for whose in (claims, of_another))
    taken = [supply.take() for supply in (first, second, first, second, second, second)]
    assert [assignment.cell.scenario.name for assignment in taken if assignment] == [
        "bolt", "nut", "bolt", "nut", "nut", "bolt",
    ]  # fmt: skip
    assert len({assignment.cell.key for assignment in taken if assignment}) == 6
    assert first.take() is None
    assert first.is_open  # the other run may die


def test_what_another_run_has_recorded_is_told_and_not_run(
    cells: Sequence[Cell], claims: Claims, of_another: Claims, tmp_path: Path
) -> None:
    store, now = RunStore(tmp_path), 0.0
    supply = Supply([cells[:2]], {}, claims, store, clock=lambda: now)
    theirs = of_another.take(cells[0].id.folder)
    assert theirs is not None
    ours = supply.take()
    assert ours is not None
    assert ours.cell.key == cells[1].key
    assert (supply.take(), list(supply.recorded_elsewhere())) == (None, [])
    made = record(store, cells[0])
    of_another.end(theirs)
    assert supply.take() is None  # it has looked a moment ago
    now = 5.0
    assert supply.take() is None
    (end,) = supply.recorded_elsewhere()
    assert (end.slot, end.cell.key, end.record) == (None, cells[0].key, made)
    assert not supply.is_open


def test_a_record_that_was_there_before_is_replaced_and_one_made_meanwhile_is_not(
    cells: Sequence[Cell], claims: Claims, tmp_path: Path
) -> None:
    store = RunStore(tmp_path)
    before = {cell.key: record(store, cell) for cell in cells[:2]}
    supply = Supply([cells[:2]], before, claims, store)
    newer = before[cells[0].key].model_copy(update={"created": datetime.now(UTC)})
    store.write(newer)
    assignment = supply.take()
    assert assignment is not None
    assert (assignment.cell.key, assignment.replaces) == (cells[1].key, True)
    assert [end.record for end in supply.recorded_elsewhere()] == [newer]


def test_a_cell_that_was_taken_over_says_from_whom(cells: Sequence[Cell], claims: Claims, tmp_path: Path) -> None:
    with Claims(tmp_path, Holder.this_process()) as gone:
        assert gone.take(cells[0].id.folder)
    assignment = Supply([cells[:1]], {}, claims, RunStore(tmp_path)).take()
    assert assignment is not None
    assert assignment.interrupted == ("a run that has ended",)
    assert assignment.token == "2"


def test_a_death_is_retried_as_often_as_asked(cells: Sequence[Cell], claims: Claims, tmp_path: Path) -> None:
    supply = Supply([cells[:1]], {}, claims, RunStore(tmp_path), retries=1)
    first = supply.take()
    assert first is not None
    assert supply.retry(first, DEATH)
    second = supply.take()
    assert second is not None
    assert (second.token, second.interrupted) == (first.token, (DEATH.reason,))
    assert not supply.retry(second, DEATH)


def test_the_last_cells_go_by_their_length(cells: Sequence[Cell]) -> None:
    length = {cell.key: index for index, cell in enumerate(cells)}
    many = [*cells[:3] * 4, *cells[3:]]
    *whole, last = groups_in_order(many, lambda cell: length[cell.key], 2)
    assert [cell.scenario.name for group in whole for cell in group] == []
    assert [length[cell.key] for cell in last] == sorted((length[cell.key] for cell in many), reverse=True)
    assert [len(group) for group in groups_in_order(many, lambda _: 1, 1)] == [12, 3]
