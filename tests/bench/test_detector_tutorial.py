"""docs/add_a_detector.md does what it says: its blocks are written to files and executed."""

import os
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import REPOSITORY, Command

from bench.cli import main
from methods.conformance import CHECKS

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (REPOSITORY / "docs" / "add_a_detector.md").read_text(), re.DOTALL)

Invoke = Callable[[str], tuple[int, str]]


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


DETECTOR, CONFORMANCE_TEST = blocks("python")
CHECK, AS_FILE, AS_INSTALLED = blocks("sh")
(EXPLANATION,) = blocks("text")
(PROJECT,) = blocks("toml")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the file that the page writes."""
    (tmp_path / "pixel_statistics.py").write_text(DETECTOR)
    monkeypatch.chdir(tmp_path)
    # As in a process of its own: another test may have imported another folder's.
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "pixel_statistics", raising=False)
    return tmp_path


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run a command line in this process; return its exit code and what it printed."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(line: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return call


@pytest.mark.slow
def test_the_detector_is_small_and_keeps_the_contract(folder: Path, invoke: Invoke) -> None:
    assert len([line for line in DETECTOR.splitlines() if line]) <= 60
    code, output = invoke(CHECK)
    assert code == 0, output
    assert " 0 broken" in output


@pytest.mark.slow
def test_a_fault_is_explained_as_the_page_says(folder: Path, invoke: Invoke) -> None:
    (change,) = re.findall(r"`(maps = maps / maps\.amax\(\))`", (REPOSITORY / "docs/add_a_detector.md").read_text())
    faulty = DETECTOR.replace("        return maps,", f"        {change}\n        return maps,")
    (folder / "pixel_statistics.py").write_text(faulty)
    code, output = invoke(CHECK)
    assert code == 3
    broken = re.search(r"^✗.*?(?=^[✓✗!–])", output, re.DOTALL | re.MULTILINE)
    assert broken is not None
    assert [line.rstrip() for line in broken[0].splitlines()] == EXPLANATION.splitlines()


def test_the_checks_run_in_pytest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    names: dict[str, Callable[[str], None]] = {}
    exec(compile(CONFORMANCE_TEST, "docs/add_a_detector.md", "exec"), names)
    for check in CHECKS:
        names["test_conformance"](check)


@pytest.mark.slow
def test_a_detector_in_a_file_runs(folder: Path, bench: Command) -> None:
    run = bench(*shlex.split(AS_FILE)[1:])
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Pixel statistics" in run.stdout


@pytest.mark.slow
def test_an_installed_detector_runs(folder: Path, bench: Command) -> None:
    project = tomllib.loads(PROJECT)
    # What pip makes of the project, without asking an index for what builds it.
    info = folder / "pixel_statistics-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".format(**project["project"])
    )
    points = [f"{name} = {value}" for name, value in project["project"]["entry-points"]["bench.methods"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[bench.methods]", *points]))
    path = os.pathsep.join([str(REPOSITORY), str(folder)])
    for line in AS_INSTALLED.splitlines():
        run = bench(*shlex.split(line)[1:], PYTHONPATH=path)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "window" in run.stdout
