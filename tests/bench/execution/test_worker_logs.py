"""What a failed cell leaves of its worker's log."""

from pathlib import Path

from bench.execution.local import log_tail


def test_a_log_tail_begins_where_the_cell_did(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of another cell\n" + "".join(f"line {index}\n" for index in range(100)))
    assert log_tail(log, 0).splitlines() == [f"line {index}" for index in range(60, 100)]
    assert log_tail(log, log.stat().st_size - 8) == "line 99"
    assert log_tail(tmp_path / "missing", 0) == ""
