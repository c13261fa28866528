"""One process is granted a cell; whoever is gone is succeeded, and nobody's clock is believed."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bench.execution.claims import Claims, Holder, Holders
from results.errors import ResultError

CELL = "tiny-parts-bolt-s0-0123456789ab"


def another_run(root: Path, **differing: object) -> Holder:
    """A run on another host, whose process cannot be looked at."""
    holder = replace(Holder.this_process(), host="other", system="another kernel", **differing)
    Holders(root).write(holder)
    return holder


def test_a_cell_is_granted_once_until_it_is_done(tmp_path: Path) -> None:
    with Claims(tmp_path, Holder.this_process()) as ours, Claims(tmp_path, Holder.this_process()) as theirs:
        claim = ours.take(CELL)
        assert claim is not None
        assert theirs.take(CELL) is None
        assert not ours.superseding(claim).exists()
        ours.end(claim)
        again = theirs.take(CELL)  # to do it anew
    assert again is not None
    assert (again.number, again.interrupted) == (2, ())
    assert ours.superseding(claim).exists()


def test_a_run_that_has_ended_leaves_its_cells_to_others_at_once(tmp_path: Path) -> None:
    with Claims(tmp_path, Holder.this_process()) as first:
        assert first.take(CELL)
    with Claims(tmp_path, Holder.this_process()) as second:
        claim = second.take(CELL)
    assert claim is not None
    assert claim.interrupted == ("a run that has ended",)


def test_a_run_whose_process_has_died_is_succeeded_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    holder = replace(Holder.this_process(), pid=process.pid, begun=time.time())
    with Claims(tmp_path, holder) as first:
        assert first.take(CELL)
        with Claims(tmp_path, Holder.this_process()) as second:
            assert second.take(CELL) is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            claim = second.take(CELL)
    assert claim is not None
    assert claim.interrupted == (f"process {process.pid} on {holder.host}, which has died",)


def test_a_process_number_that_is_used_anew_is_not_the_run(tmp_path: Path) -> None:
    with Claims(tmp_path, replace(Holder.this_process(), begun=1.0)) as first:
        assert first.take(CELL)
        with Claims(tmp_path, Holder.this_process()) as second:
            assert second.take(CELL)


def test_silence_is_measured_by_the_clock_of_who_waits(tmp_path: Path) -> None:
    now = 0.0
    seen = Holders(tmp_path, silence=60, clock=lambda: now)
    holder = another_run(tmp_path, begun=time.time() + 3600)  # its clock is an hour ahead
    assert seen.why_gone(holder.id) == ""
    now = 59.0
    assert seen.why_gone(holder.id) == ""
    Holders(tmp_path).write(replace(holder, beats=1))
    now = 118.0
    assert seen.why_gone(holder.id) == ""
    now = 179.0
    assert seen.why_gone(holder.id) == f"process {os.getpid()} on other, silent for 61 s"
    Holders(tmp_path).write(replace(holder, beats=2))  # it was only stopped
    assert seen.why_gone(holder.id) == ""


def test_the_silent_are_succeeded_and_the_living_are_not(tmp_path: Path) -> None:
    with Claims(tmp_path, Holder.this_process(), silence=0.4) as ours, Claims(tmp_path, Holder.this_process()) as slow:
        silent = another_run(tmp_path)
        theirs = {"cell": CELL, "number": 1, "holder": silent.id, "since": "", "interrupted": [], "ended": False}
        (tmp_path / ".work/claims" / f"{CELL}.1").write_text(json.dumps(theirs))
        assert ours.take(CELL) is None
        assert {holder.id for holder in ours.others()} >= {silent.id}
        time.sleep(0.6)
        assert slow.take(CELL) is None  # which waits for a minute
        claim = ours.take(CELL)
    assert claim is not None
    assert "silent for" in claim.interrupted[0]


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"cell": 3}', b"\xff\x00"])
def test_a_claim_that_cannot_be_read_is_waited_for_as_long_as_a_silent_run(tmp_path: Path, garbage: bytes) -> None:
    with Claims(tmp_path, Holder.this_process(), silence=0.3) as claims:
        (tmp_path / ".work/claims" / f"{CELL}.1").write_bytes(garbage)
        assert claims.take(CELL) is None
        time.sleep(0.4)
        claim = claims.take(CELL)
    assert claim is not None
    assert claim.interrupted == ("a run whose claim cannot be read",)


def test_a_holder_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    with Claims(tmp_path, Holder.this_process()) as claims:
        for number, text in enumerate(("", "{", "[]", '{"id": 1}')):
            (tmp_path / ".work/holders" / f"{number}.json").write_text(text)
        assert claims.others() == []


def test_a_folder_that_cannot_be_written_is_named(users_folder: Path) -> None:
    users_folder.chmod(0o500)
    with (
        pytest.raises(ResultError, match=r"cannot write .*Permission denied; .*--out"),
        Claims(users_folder, Holder.this_process()),
    ):
        pass


def test_a_claim_that_cannot_be_written_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, _mode: str) -> None:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Claims(tmp_path, Holder.this_process()) as claims:
        monkeypatch.setattr(os, "fdopen", full)
        with pytest.raises(ResultError, match=r"No space left on device; make room"):
            claims.take(CELL)
        monkeypatch.undo()
        assert not list((tmp_path / ".work/claims").iterdir())
        assert claims.take(CELL)


def take_all(root: Path, cells: int) -> list[int]:
    with Claims(root, Holder.this_process()) as claims:
        taken = [number for number in range(cells) if claims.take(str(number))]
        time.sleep(2)  # until the others have tried
    return taken


@pytest.mark.slow
def test_of_many_processes_each_cell_is_granted_to_one(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        for taken in [[*pool.map(take_all, [tmp_path] * 4, [200] * 4)]]:
            assert sorted(number for numbers in taken for number in numbers) == list(range(200))
