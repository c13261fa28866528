"""What is said of the host."""

import gc
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.machine.devices import Slot
from bench.timing import host
from bench.timing.host import describe_machine, machine_id, watch_host


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
