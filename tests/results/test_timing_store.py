"""The files of timings: nothing that was measured is lost, nothing counts twice, damage is named."""

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from timing_factory import make_timing

from results.errors import ResultError
from results.schema import TIMING_SCHEMA_FILE, schema_text
from results.timing_record import TimingRecord
from results.timing_store import (
    Samples,
    append_timing,
    read_samples,
    read_timings,
    timing_file_name,
    write_samples,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "timing" / "machine.jsonl"
    for process in range(3):
        append_timing(path, make_timing(process=process))
    return path


def test_records_come_back_as_they_were(file: Path) -> None:
    found = read_timings([file])
    assert found.records == tuple(make_timing(process=process) for process in range(3))
    assert found.notes == ()


def test_a_killed_writer_costs_its_own_line_and_the_next_one_starts_anew(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    found = read_timings([file])
    assert len(found.records) == 2
    assert found.notes == ("The last line of machine.jsonl is unfinished, as its process was killed: it is left out.",)
    append_timing(file, make_timing(process=7))
    assert [record.sampling.process for record in read_timings([file]).records] == [0, 1, 7]


def test_a_full_disk_leaves_the_lines_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultError, match="No space left on device"):
        append_timing(file, make_timing(process=3))
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "line 2 is damaged"),
        ('{"a": 1}', "line 2 is not a timing: it has no schema_version"),
        ("[1]", "line 2 is not a timing"),
        ('{"schema_version": 1}', "does not follow timing schema version 1: session: Field required"),
        ('{"schema_version": 99}', "has timing schema version 99, this installation reads up to 1"),
    ],
)
def test_a_damaged_line_is_named(file: Path, line: str, said: str) -> None:
    lines = file.read_text().splitlines()
    lines[1] = line
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ResultError, match=said):
        read_timings([file])


def test_the_same_line_in_two_files_counts_once(file: Path) -> None:
    copy = file.with_name("copy.jsonl")
    copy.write_bytes(file.read_bytes())
    assert len(read_timings([file.parent]).records) == 3


def test_run_folders_and_any_folders_are_read(file: Path) -> None:
    run = file.parent.parent
    (run / "cells").mkdir()
    (run / "cells" / "stray.jsonl").write_text("no timing")
    assert len(read_timings([run]).records) == 3
    assert len(read_timings([file.parent]).records) == 3
    assert read_timings([]).records == ()


def test_samples_come_back_bit_by_bit(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    samples = Samples(wall_ms=random.random(50), cpu_ms=random.random(50), event_ms=random.random(50))
    write_samples(tmp_path / "s" / "0000.npz", samples)
    back = read_samples(tmp_path / "s" / "0000.npz")
    assert np.array_equal(back.wall_ms, samples.wall_ms)
    assert np.array_equal(back.event_ms, samples.event_ms)
    assert back.enqueue_ms is None
    (tmp_path / "s" / "0000.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ResultError, match="cannot read the samples"):
        read_samples(tmp_path / "s" / "0000.npz")


def test_a_file_is_called_by_machine_time_and_commit() -> None:
    started = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
    assert timing_file_name("abc", started, "0123456789") == "abc_20261101T123000Z_0123456.jsonl"
    assert timing_file_name("../x", started, None) == "_x_20261101T123000Z_install.jsonl"


def test_the_schema_is_kept_beside_the_records_schema() -> None:
    assert TIMING_SCHEMA_FILE.read_text() == schema_text(TimingRecord)
