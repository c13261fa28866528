"""The same from Python: typed, silent, and with the options of the command line."""

import inspect
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from cli_support import REPOSITORY
from rich.console import Console

from bench.api import evaluate, export, load_detector, run, time
from bench.errors import UsageError
from bench.options import EvaluationOptions, RunOptions
from methods.errors import MethodError
from results.arrays import read_maps
from results.store import RunStore

README = REPOSITORY / "README.md"


def test_arguments_are_the_options_of_the_commands() -> None:
    of_the_terminal = {"dry_run", "json"}
    for function, options, own in ((run, RunOptions, {"console"}), (evaluate, EvaluationOptions, {"say"})):
        parameters = set(inspect.signature(function).parameters)
        assert parameters - own == {option.name for option in fields(options)} - of_the_terminal


@pytest.fixture
def here(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with the detector ``tiny`` installed."""
    monkeypatch.syspath_prepend(str(plugin))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_run_evaluate_and_load(
    here: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINY", "1=error")
    options = {"data_root": data_root, "out": "out", "keep_maps": True, "keep_models": True}
    records = run(["tiny"], "parts/nut", seeds=[0, 1], set={"tiny": {"side": 16}}, **options)
    assert [record.status for record in records] == ["ok", "failed"]
    assert records[0].config["side"] == 16
    assert records[0].command == (
        f"bench.api.run(methods=['tiny'], datasets='parts/nut', data_root={data_root!r}, seeds=[0, 1], out='out', "
        "set={'tiny': {'side': 16}}, keep_maps=True, keep_models=True)"
    )
    assert records[1].failure is not None
    assert records[1].failure.reason == "the method cannot do this"

    said: list[str] = []
    again = evaluate("out", data_root=data_root, with_models=True, out="again", say=said.append)
    assert [record.metrics for record in again] == [records[0].metrics]
    assert said == []
    assert capfd.readouterr() == ("", "")

    folder = RunStore(here / "out").cell_directory(records[0])
    detector = load_detector(folder)
    assert detector.input_size == (16, 16)
    prediction = detector.predict(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    assert (prediction.maps.shape, prediction.scores.shape) == ((2, 16, 16), (2,))
    assert next(iter(read_maps(folder).values())).shape == (16, 16)

    console = Console(record=True, width=200)
    more = run(["tiny"], "parts/nut", seeds=[0, 2], set={"tiny": {"side": 16}}, console=console, **options)
    assert more[0] == records[0]
    assert re.findall(r"start +(.+) on", console.export_text()) == ["tiny · parts/nut · 2"]


@pytest.mark.slow
def test_time_and_export(
    here: Path,
    environment: dict[str, str],
    data_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])  # of the processes that time
    run("tiny", "parts/nut", data_root=data_root, out="out", keep_models=True)
    quick = {"device": "cpu", "data_root": data_root, "time_budget": 0.2, "processes": 1}
    first = time("out", **quick)
    assert [(record.subject.method, record.setting.batch) for record in first] == [("tiny", 1)]
    assert {record.setting.batch for record in time("out", batch=[2, 4], **quick)} == {2, 4}
    exported = export("out", format="torch_export", data_root=data_root)
    assert exported.description.parity is not None
    assert exported.description.parity.flipped == []
    assert exported.files[0].parent.parent == Path("out") / "cells"
    with pytest.raises(UsageError, match="one of them"):
        time(device="cpu")
    with pytest.raises(UsageError, match="did you mean 'batch'"):
        time("out", batches=[1])
    assert capfd.readouterr() == ("", "")


def test_what_makes_no_sense_is_refused(here: Path, data_root: Path) -> None:
    with pytest.raises(MethodError, match="did you mean 'tiny'"):
        run("tinny", data_root=data_root)
    with pytest.raises(UsageError, match="seeds"):
        run("tiny", seeds=[-1], data_root=data_root)
    with pytest.raises(UsageError, match="there is no folder"):
        evaluate("nowhere")


@pytest.mark.slow
def test_the_readmes_example_runs(environment: dict[str, str], tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "bench.api" in block]
    assert code.count('"patchcore"') == 1
    # A detector that is fitted in no time, and needs no weights.
    (tmp_path / "example.py").write_text(code.replace('"patchcore"', '"tiny"'))
    done = subprocess.run(
        [sys.executable, "example.py"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"coins 0\.\d+ True\n\(1, 24, 24\)\n", done.stdout), done.stdout
