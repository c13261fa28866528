"""What a person reads while a run is going: in a terminal, and in a log."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bench.cells import Cell
from bench.datasets.cache import Cache
from bench.execution.events import Ended, Interrupted, Progressed, Started, Waiting
from bench.forecast import duration
from bench.machine.devices import Slot
from bench.machine.environment import environment
from bench.options import RunOptions
from bench.plan import make_plan
from bench.progress import LiveDisplay, LogDisplay, Pace, make_display
from methods.detector import Progress
from results.record import Failure, Record, Timings

SLOT = Slot(0, "cpu", 2)


@pytest.fixture
def cells(plugin: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Cell, ...]:
    """``tiny`` on ``parts/bolt`` with seed 0 and with seed 1."""
    monkeypatch.syspath_prepend(str(plugin))
    options = RunOptions(("tiny",), "parts/bolt", seeds=(0, 1), data_root=data_root)
    return make_plan(options, Cache(tmp_path, enabled=False)).cells


def record_of(cell: Cell, failure: Failure | None = None) -> Record:
    return Record(
        key=cell.key,
        status="failed" if failure else "ok",
        method="tiny",
        title="Tiny",
        source="nobody",
        collection=cell.scenario.collection,
        scenario="bolt",
        seed=cell.seed,
        config={},
        protocol={},
        protocol_hash="",
        metrics={} if failure else {"image_au_roc": 0.987, "au_pro@0.3": 0.5},
        timings=None if failure else Timings(decode=1, fit=70, maps=2, metrics=2),
        failure=failure,
        environment=environment(SLOT),
        command="",
        created=datetime.now(UTC),
    )


class Screen:
    """A terminal of which we keep what is written to it."""

    def __init__(self, width: int) -> None:
        self._file = StringIO()
        self.console = Console(force_terminal=True, file=self._file, width=width, _environ={"TERM": "xterm"})

    def written(self) -> str:
        """What has been written to it since last time."""
        written = self._file.getvalue()
        self._file.seek(0)
        self._file.truncate()
        return written

    def frame(self) -> str:
        """The same as text, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.written())


@pytest.mark.parametrize("width", [120, 80])
def test_a_terminal_shows_a_line_per_cell_and_one_for_the_run(cells: tuple[Cell, ...], width: int) -> None:
    screen = Screen(width)
    now = 0.0
    display = LiveDisplay(screen.console, 2, lambda: now)
    with display:
        display.show(Started(SLOT, cells[0]))
        display.show(Started(SLOT, cells[1]))
        display.show(Progressed(SLOT, cells[0], Progress("train", 1000, 2000)))
        now = 10.0
        display.show(Progressed(SLOT, cells[0], Progress("train", 1200, 2000)))
        screen.frame()
        display.refresh()
        total, first, second = [line.strip() for line in screen.frame().strip().splitlines()][-3:]
        assert re.fullmatch(r"all cells +\S+ +0/2", total), total
        assert re.fullmatch(r"tiny · parts/bolt · 0 +train +\S+ +1,200/2,000 +20/s +0:40", first), first
        assert re.fullmatch(r"tiny · parts/bolt · 1 +start +\S+", second), second

        now = 120.0
        display.show(Ended(SLOT, cells[0], record_of(cells[0])))
        shown = screen.frame()
        assert "done   tiny · parts/bolt · 0: image AU-ROC 98.7, AU-PRO@0.3 50.0 (1:15)" in shown
        display.refresh()
        left = screen.frame()
        assert "parts/bolt · 0" not in left
        assert re.search(r"all cells .*1/2 +2:00", left), left

        display.show(Ended(SLOT, cells[1], record_of(cells[1], Failure(kind="error", reason="no [weights] here"))))
        assert "failed tiny · parts/bolt · 1: no [weights] here" in screen.frame()
    assert screen.written().endswith("\x1b[1A\x1b[2K")  # the lines are wiped out again


def test_an_interrupted_terminal_is_left_clean(cells: tuple[Cell, ...]) -> None:
    screen = Screen(100)
    with suppress(KeyboardInterrupt), LiveDisplay(screen.console, 2) as display:
        display.show(Started(SLOT, cells[0]))
        raise KeyboardInterrupt
    drawn, _, wiped = screen.written().rpartition("\n")
    assert "parts/bolt" in drawn
    assert wiped.count("\x1b[1A\x1b[2K") == 2  # of the run and of the cell


def test_a_log_has_a_line_when_something_happens_and_twice_a_minute(cells: tuple[Cell, ...]) -> None:
    file = StringIO()
    now = 0.0
    display = LogDisplay(Console(file=file, width=40), 1, lambda: now)
    with display:
        display.show(Started(SLOT, cells[0]))
        for now in (1.0, 11.0, 31.0, 41.0):
            display.show(Progressed(SLOT, cells[0], Progress("train", 10 * int(now), 1000)))
        display.show(Ended(SLOT, cells[0], record_of(cells[0])))
    assert file.getvalue().splitlines() == [
        "start  tiny · parts/bolt · 0 on cpu",
        "       tiny · parts/bolt · 0: train 310/1,000, 10/s, 1:09 left",
        "done   tiny · parts/bolt · 0: image AU-ROC 98.7, AU-PRO@0.3 50.0 (1:15) [1 of 1]",
    ]


def test_what_other_runs_do_is_told_apart(cells: tuple[Cell, ...]) -> None:
    file, screen = StringIO(), Screen(120)
    events = [
        Started(SLOT, cells[0]),
        Interrupted(SLOT, cells[0], "its node was lost"),
        Waiting(1),
        Waiting(1),
        Ended(None, cells[1], record_of(cells[1])),
    ]
    log, live = LogDisplay(Console(file=file), 2), LiveDisplay(screen.console, 2)
    with live:
        for event in events:
            log.show(event)
            live.show(event)
    lines = [
        "again  tiny · parts/bolt · 0: its node was lost",
        "waiting for 1 cell that other runs hold",
        "done   tiny · parts/bolt · 1: image AU-ROC 98.7, AU-PRO@0.3 50.0 (1:15) (by another run) [1 of 2]",
    ]
    assert file.getvalue().splitlines() == ["start  tiny · parts/bolt · 0 on cpu", *lines]
    shown = screen.frame()
    assert lines[0] in shown
    assert "(by another run)" in shown


def test_a_terminal_gets_live_lines_and_a_file_gets_a_log() -> None:
    assert isinstance(make_display(Screen(80).console, 1), LiveDisplay)
    assert isinstance(make_display(Console(file=StringIO()), 1), LogDisplay)


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 75, 3600 * 26 + 5)] == ["0:00", "1:15", "26:00:05"]


def test_pace_counts_from_the_first_step_of_a_stage() -> None:
    now = 100.0
    pace = Pace(clock=lambda: now)
    assert pace.describe("k", Progress("fit", 0, 1)) == ("", "", "")
    assert pace.describe("k", Progress("train", 1000, 2000)) == ("1,000/2,000", "", "")
    now = 110.0
    assert pace.describe("k", Progress("train", 1200, 2000)) == ("1,200/2,000", "20/s", "0:40")
    assert pace.describe("k", Progress("maps", 8, 80)) == ("8/80", "", "")
    now = 130.0
    assert pace.describe("k", Progress("maps", 16, 80)) == ("16/80", "2.5 s each", "2:40")
