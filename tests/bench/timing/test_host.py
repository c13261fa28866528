"""What is said of the host."""

import gc
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.machine.devices import Slot
from bench.timing import host
from bench.timing.host import describe_machine, machine_id, share_taken, watch_host


def test_the_garbage_collector_rests_while_it_is_timed_and_works_again_afterwards() -> None:
    assert gc.isenabled()
    with watch_host() as watch:
        assert not gc.isenabled()
    assert gc.isenabled()
    assert watch.state is not None
    assert not watch.state.garbage_collector


def test_an_error_in_the_block_leaves_the_collector_on() -> None:
    with pytest.raises(ZeroDivisionError), watch_host():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_what_other_processes_do_is_seen() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        with watch_host() as beside:
            time.sleep(0.5)
    finally:
        busy.kill()
        busy.wait()
    assert beside.state is not None
    assert beside.state.busy_elsewhere is not None
    assert beside.state.busy_elsewhere > 0.05  # a process that never rests; of however many CPUs there are


@pytest.mark.parametrize(
    ("elsewhere", "available", "usable", "share"),
    [
        (0.5, 2.0, 2.0, 0.25),  # of two CPUs, all of which are usable
        (30.0, 64.0, 2.0, 0.0),  # a container with two of 64 CPUs: there was room beside the others
        (63.0, 64.0, 2.0, 0.5),
        (64.0, 64.0, 2.0, 1.0),
        (-0.1, 2.0, 2.0, 0.0),
    ],
)
def test_others_take_what_a_process_might_have_used(
    elsewhere: float, available: float, usable: float, share: float
) -> None:
    assert share_taken(elsewhere, available, usable) == pytest.approx(share)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity cannot be set here")
def test_only_cpus_that_a_process_may_run_on_count() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(allowed)})
        assert len(host._cpu_times()) == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert len(host._cpu_times()) == len(allowed)


@pytest.mark.parametrize(("text", "limit"), [("200000 100000", 2.0), ("max 100000", None), ("", None)])
def test_a_control_groups_limit_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, limit: float | None
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(host, "_CPU_LIMIT", tmp_path / "cpu.max")
    assert host._limit() == limit


def test_a_control_group_that_was_held_back_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = tmp_path / "cpu.stat"
    statistics.write_text("usage_usec 5\nnr_throttled 1\nthrottled_usec 1500000\n")
    monkeypatch.setattr(host, "_CONTROL_GROUP", statistics)
    with watch_host() as watch:
        statistics.write_text("usage_usec 9\nnr_throttled 2\nthrottled_usec 4000000\n")
    assert watch.state is not None
    assert watch.state.throttled_seconds == 2.5


@pytest.mark.parametrize("text", ["", "usage_usec 5\n", "throttled_usec many\n"])
def test_no_figure_is_not_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    statistics = tmp_path / "cpu.stat"
    statistics.write_text(text)
    monkeypatch.setattr(host, "_CONTROL_GROUP", statistics)
    with watch_host() as watch:
        pass
    assert watch.state is not None
    assert watch.state.throttled_seconds is None


def test_a_machine_is_recognised_and_not_told() -> None:
    machine = describe_machine(Slot(0, "cpu", 2), None)
    assert machine.id == machine_id("") != machine_id("GPU-1")
    assert re.fullmatch(r"[0-9a-f]{12}", machine.id)
    assert machine.gpu is None
    assert machine.cores >= 1
    assert machine.packages["torch"]
    try:
        identity = Path("/etc/machine-id").read_text().strip()
    except OSError:
        return
    assert identity not in machine.model_dump_json()
