"""``bench run`` as users run it: to the end, again, interrupted, killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cli_support import Command, CommandServer

from bench.cell import kept_maps
from bench.datasets.cache import Cache
from bench.datasets.selection import select_scenarios
from bench.run_folder import choose_folder
from reports.block import BEGIN, END
from results.arrays import read_maps
from results.store import RunStore

pytestmark = pytest.mark.slow
"""Every test starts the command line several times, some seconds each."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def finished(
    data_root: Path, command_line: CommandServer, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """An uninterrupted run of four cells in the folder ``out``."""
    return command_line(*arguments(data_root), folder=tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def out(finished: subprocess.CompletedProcess[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of that run."""
    return next(tmp_path_factory.getbasetemp().glob("finished*/out"))


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Start the command line in the background, in an empty folder and in a process group of its own."""
    started = []

    def begin(*options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *map(str, options)],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Shells start background jobs, such as a test run, with Ctrl-C ignored, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def arguments(data_root: Path, *more: object) -> list[str]:
    fixed = ("run", "--methods", "tiny", "--datasets", "all", "--seeds", "0,1", "--out", "out", "--keep-maps")
    return [*fixed, "--data-root", str(data_root), "--set", "tiny.pause=0.05", *map(str, more)]


def wait_for(condition: Callable[[], object], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def results_of(out: Path) -> list[tuple[object, ...]]:
    """What must not depend on when and in how many attempts the cells ran."""
    varying = {"timings", "created", "command", "environment", "peak_memory", "interrupted"}
    return [tuple(record.model_dump(exclude=varying).items()) for record in RunStore(out).records()]


def test_a_run_records_every_cell_and_reports(finished: subprocess.CompletedProcess[str], out: Path) -> None:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "parts: 2 scenarios" in finished.stdout
    assert "report: out/report/report.md" in finished.stdout
    records = RunStore(out).records()
    assert [(record.scenario, record.seed) for record in records] == [("bolt", 0), ("bolt", 1), ("nut", 0), ("nut", 1)]
    record = records[0]
    assert record.training_steps == len(record.losses) == 20
    assert record.data is not None
    assert (record.data.train, record.data.validation) == (6, 0)
    assert record.environment.threads >= 1
    assert "au_pro_q1@0.3" in record.metrics
    assert "au_pro_q1@0.05" not in record.metrics
    assert {image.defect for image in record.images} == {"good", "dent", "stain"}
    assert (out / "report/metrics.csv").exists()
    folder = RunStore(out).cell_directory(record)
    assert {path.name for path in folder.iterdir()} == {"record.json", "examples.npz", "maps.npz", "regions.json"}


def test_the_same_command_again_does_nothing(
    finished: subprocess.CompletedProcess[str], out: Path, data_root: Path, command_line: CommandServer
) -> None:
    def written() -> dict[Path, int]:
        """When each file was; not the lock, which some versions of filelock write when they take it."""
        return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != ".lock"}

    before = written()
    again = command_line(*arguments(data_root), folder=out.parent)
    assert again.returncode == 0, again.stderr
    assert "nothing to do: all 4 cells have run before" in again.stdout
    assert finished.stdout.splitlines()[-8:] == again.stdout.splitlines()[-8:]
    assert written() == before


def test_a_killed_run_continues_to_the_same_results(
    bench: Command, start: Start, out: Path, data_root: Path, tmp_path: Path
) -> None:
    process = start(*arguments(data_root))
    wait_for(lambda: len(list(tmp_path.glob("out/cells/*/record.json"))) >= 1 or process.poll() is not None)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(children, timeout=20)[1], "a worker has outlived its parent"
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/cells/*/record.json")}
    assert 1 <= len(done) < 4

    again = bench(*arguments(data_root, "--no-cache"))
    assert again.returncode == 0, again.stderr
    assert all(path.stat().st_mtime_ns == written for path, written in done.items())
    assert results_of(tmp_path / "out") == results_of(out)
    interrupted = [why for record in RunStore(tmp_path / "out").records() for why in record.interrupted]
    assert all(f"process {process.pid} " in why and "has died" in why for why in interrupted)
    assert (tmp_path / "out/report/means.csv").read_bytes() == (out / "report/means.csv").read_bytes()


def test_ctrl_c_stops_cleanly(start: Start, data_root: Path, tmp_path: Path) -> None:
    process = start(*arguments(data_root, "--set", "tiny.pause=30", "--workers", 2))

    def log() -> str:
        return "".join(path.read_text() for path in tmp_path.glob("out/logs/worker-*-0.log"))

    wait_for(lambda: "about to fit" in log() or process.poll() is not None)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "0 of 4 cells are recorded" in output
    assert "the same command continues" in output
    assert "Traceback" not in output
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert not list(tmp_path.glob("out/cells/*"))


def test_ctrl_c_while_a_worker_starts(start: Start, data_root: Path, tmp_path: Path) -> None:
    process = start(*arguments(data_root, "--workers", 2))

    def workers() -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children()
            return [child for child in children if any("spawn_main" in part for part in child.cmdline())]
        return []

    wait_for(lambda: process.poll() is not None or workers())
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert not list(tmp_path.glob("out/cells/*"))


def test_cells_without_maps_run_again_to_keep_them(out: Path, data_root: Path, bench: Command, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    next(tmp_path.glob("out/cells/*/maps.npz")).unlink()
    command = [*arguments(data_root, "--dry-run", "--json")]

    def reasons() -> list[str | None]:
        done = bench(*command)
        return [cell["due"] for cell in json.loads(done.stdout)["cells"]]

    assert sorted(reasons(), key=str) == [None, None, None, "to run again for its maps"]
    command.remove("--keep-maps")
    assert reasons() == [None] * 4


def test_a_kept_model_is_taken_where_only_the_test_images_have_changed(
    bench: Command, data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(data_root, tmp_path / "data")
    command = ("run", "--methods", "tiny", "--datasets", "parts/bolt", "--data-root", "data", "--out", "out")
    assert bench(*command, "--keep-models").returncode == 0
    (old,) = RunStore(tmp_path / "out").records()
    first = tmp_path / "data/parts/bolt/test/good"
    shutil.copy(first / "000.png", first / "001.png")
    done = bench(*command, TINY="0=bug")  # which it shows when it is fitted
    assert done.returncode == 0, done.stdout + done.stderr
    assert f", kept model of {old.key[:12]})" in done.stdout
    (new,) = [record for record in RunStore(tmp_path / "out").records() if record.key != old.key]
    assert new.fit_key == old.fit_key
    assert new.implementation == {**old.implementation, "fit": f"kept model of {old.key[:12]}"}
    assert (new.training_steps, new.losses, new.model) == (old.training_steps, old.losses, old.model)
    assert new.data is not None
    assert old.data is not None
    assert new.data.fingerprint != old.data.fingerprint
    assert (new.data.train, new.data.validation) == (old.data.train, old.data.validation)
    assert new.timings is not None
    assert old.timings is not None
    assert new.timings.fit == old.timings.fit
    inodes = {path.stat().st_ino for path in tmp_path.glob("out/cells/*/model.safetensors")}
    assert len(inodes) == 1, "the model is there twice"

    image = tmp_path / "data/parts/bolt/train/good/000.png"
    shutil.copy(image.with_name("001.png"), image)
    fitted = bench(*command, TINY="0=bug")
    assert fitted.returncode == 3
    assert "nobody expected this" in fitted.stdout


def test_kept_maps_are_taken_where_only_the_scoring_has_changed(out: Path, data_root: Path, tmp_path: Path) -> None:
    record = RunStore(out).records()[0]
    folder = RunStore(out).cell_directory(record)
    cache = Cache(tmp_path, enabled=False)
    (bolt,), (nut,) = (select_scenarios(name, data_root, cache) for name in ("parts/bolt", "parts/nut"))
    maps = kept_maps(folder, bolt)
    assert maps is not None
    assert maps.scores.tolist() == [image.score for image in record.images]
    stored = read_maps(folder)
    assert all((maps.maps[index] == stored[name]).all() for index, name in enumerate(bolt.names))
    assert kept_maps(folder, nut) is None, "maps of other images"
    assert kept_maps(tmp_path, bolt) is None, "no maps"


def test_cells_without_models_run_again_to_keep_them(
    out: Path, bench: Command, data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(out, tmp_path / "out")
    done = bench(*arguments(data_root, "--keep-models", "--dry-run", "--json"))
    assert {cell["due"] for cell in json.loads(done.stdout)["cells"]} == {"to run again for its model"}


def test_the_means_go_into_a_markdown_file(out: Path, bench: Command, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n\n{BEGIN}\n{END}\n")

    def report(*options: str) -> int:
        return bench("report", out, "--into", page, *options).returncode

    assert report("--check") == 3
    assert report() == 0
    assert "| Tiny" in page.read_text()
    assert report("--check") == 0


def test_without_out_the_newest_run_of_the_same_cells_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, keys in (("2026-01-01", "[]"), ("2026-01-02", "[]"), ("2026-01-03", '["other"]'), ("2026-01-04", "{")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "plan.json").write_text(f'{{"keys": {keys}}}')
    folder, why = choose_folder(None, [])
    assert folder == Path("runs/2026-01-02")
    assert "continued" in why
    assert choose_folder(Path("there"), []) == (Path("there"), "")
