import errno
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from results.errors import ResultError
from results.record import Record
from results.store import CellId, RunStore, safe_name


def with_key(record: Record, number: int) -> Record:
    return record.model_copy(update={"key": f"{number:02x}" * 32, "seed": number})


def test_a_written_record_is_found(tmp_path, record):
    store = RunStore(tmp_path / "run")
    assert store.records() == []
    assert store.find(record.key) is None
    path = store.write(record)
    folder = "efficientad_s-mvtec_ad-pill-s0-3f8a1c0d9b7e"
    assert path == tmp_path / "run" / "cells" / folder / "record.json"
    assert store.cell_directory(CellId.of(record)) == store.cell_directory(record) == path.parent
    assert store.find(record.key) == record
    assert store.find(record.key[:12] + "0" * 52) is None
    assert store.records() == [record]


def test_a_second_write_replaces_the_first(tmp_path, record):
    store = RunStore(tmp_path)
    store.write(record)
    retried = record.model_copy(update={"training_steps": 800})
    store.write(retried)
    assert store.records() == [retried]


def test_records_come_in_a_stable_order(tmp_path, record):
    store = RunStore(tmp_path)
    for number in (11, 2, 0):
        store.write(with_key(record, number))
    assert [found.seed for found in store.records()] == [0, 2, 11]


def test_half_written_cells_are_passed_over(tmp_path, record):
    store = RunStore(tmp_path)
    store.write(record)
    unfinished = tmp_path / "cells" / "patchcore-mvtec_ad-pill-s0-000000000000"
    unfinished.mkdir()
    (unfinished / ".record.json.0123.tmp").write_text('{"schema_ver')
    (tmp_path / "cells" / "stray.txt").write_text("")
    assert store.records() == [record]
    assert store.find("0" * 64) is None


def test_a_full_disk_leaves_the_old_state(tmp_path, record, monkeypatch):
    store = RunStore(tmp_path)
    path = store.write(record)

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultError, match="No space left on device") as caught:
        store.write(record.model_copy(update={"training_steps": 800}))
    assert str(path) in str(caught.value)
    assert store.records() == [record]
    assert list(path.parent.iterdir()) == [path]


def test_an_unwritable_folder_is_named(tmp_path, record):
    blocked = tmp_path / "run"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(ResultError, match="choose another folder"):
        RunStore(blocked).write(record)


def write_many(root: Path, record: Record, first: int) -> None:
    for number in range(first, first + 10):
        RunStore(root).write(with_key(record, number))


@pytest.mark.slow
def test_several_processes_write_at_once(tmp_path, record):
    # The ranges overlap: two processes also write the same cells.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for job in [pool.submit(write_many, tmp_path, record, first) for first in (0, 5)]:
            job.result()
    assert [found.seed for found in RunStore(tmp_path).records()] == list(range(15))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b\\c", "", "..", "naïve пила", "x" * 500, "con\n\0"])
def test_any_name_gives_a_harmless_folder(tmp_path, record, name):
    cell = CellId(name, name, name, 0, record.key)
    directory = RunStore(tmp_path).cell_directory(cell)
    assert directory.parent == tmp_path / "cells"
    assert len(directory.name) < 200
    directory.mkdir(parents=True)
    assert safe_name(name)


def test_a_draft_becomes_the_cells_folder_at_once(tmp_path, record):
    store = RunStore(tmp_path)
    draft = store.draft(record, "1", replaces=False)
    draft.write(record)
    (draft.directory / "maps.npz").write_bytes(b"maps")
    assert store.records() == []
    assert draft.publish()
    assert store.records() == [record]
    assert (store.cell_directory(record) / "maps.npz").read_bytes() == b"maps"
    assert not draft.directory.exists()


def test_of_two_drafts_of_a_first_record_one_is_published(tmp_path, record):
    store = RunStore(tmp_path)
    late = record.model_copy(update={"training_steps": 800})
    drafts = [store.draft(record, token, replaces=False) for token in "12"]
    for draft, written in zip(drafts, (record, late), strict=True):
        draft.write(written)
        (draft.directory / "maps.npz").write_text(str(written.training_steps))
    assert [draft.publish() for draft in drafts] == [True, False]
    assert store.records() == [record]
    assert (store.cell_directory(record) / "maps.npz").read_text() == str(record.training_steps)
    assert not any(draft.directory.exists() for draft in drafts)


def test_a_draft_replaces_what_it_has_and_leaves_the_rest(tmp_path, record):
    store = RunStore(tmp_path)
    folder = store.write(record).parent
    for name in ("maps.npz", "model.safetensors"):
        (folder / name).write_text("old")
    draft = store.draft(record)
    retried = record.model_copy(update={"training_steps": 800})
    draft.write(retried)
    (draft.directory / "regions.json").write_text("[]")
    assert draft.publish(remove=["maps.npz"])
    assert store.records() == [retried]
    assert {path.name for path in folder.iterdir()} == {"record.json", "model.safetensors", "regions.json"}


def test_a_draft_of_a_cell_that_was_taken_over_replaces_nothing(tmp_path, record):
    store = RunStore(tmp_path)
    store.write(record)
    (tmp_path / "claim.2").touch()
    draft = store.draft(record, superseded=tmp_path / "claim.2")
    draft.write(record.model_copy(update={"training_steps": 800}))
    assert not draft.publish()
    assert store.records() == [record]


def test_a_folder_without_a_record_is_no_obstacle(tmp_path, record):
    store = RunStore(tmp_path)
    store.cell_directory(record).mkdir(parents=True)
    (store.cell_directory(record) / "maps.npz").touch()
    draft = store.draft(record, replaces=False)
    draft.write(record)
    assert draft.publish()
    assert store.records() == [record]


def test_a_draft_left_by_an_earlier_attempt_is_removed(tmp_path, record):
    store = RunStore(tmp_path)
    first, second = store.draft(record, "1").directory, store.draft(record, "2").directory
    for directory in (first, second):
        directory.mkdir(parents=True)
    store.draft(record, "1")
    assert (first.exists(), second.exists()) == (False, True)


def test_drafts_of_recorded_cells_are_cleared_and_others_stay(tmp_path, record):
    store = RunStore(tmp_path)
    other = record.model_copy(update={"seed": 7})
    left, running = store.draft(record, "1").directory, store.draft(other, "1").directory
    for directory in (left, running):
        directory.mkdir(parents=True)
    store.write(record)
    store.clear_drafts()
    assert (left.exists(), running.exists()) == (False, True)
