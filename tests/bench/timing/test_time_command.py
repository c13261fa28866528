"""``bench time`` from end to end, on detectors as small as can be."""

import dataclasses
import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cli_support import Command, CommandServer

from bench.commands.run import run
from bench.options import RunOptions
from bench.timing import protocols
from methods.common.precision import cpu_features, lacks_instructions
from results.timing_record import TimingRecord
from results.timing_store import read_samples, read_timings

TINY = Path(__file__).parents[1] / "plugin" / "tiny_detectors.py"
FAULTY = '''
"""A detector that dies, or fails, when it is told to."""

import os
from tiny_detectors import Tiny, TinyConfig, TinyModule


class FaultyModule(TinyModule):
    def forward(self, images):
        fault = os.environ.get("TIMING_FAULT")
        if fault == "killed":
            os.kill(os.getpid(), 9)
        if fault == "raises" and len(images) == 2:
            raise ZeroDivisionError("two is too many")
        maps, scores = super().forward(images)
        if fault == "zeros":
            maps = maps * 0
        return maps, scores


class Faulty(Tiny):
    title = "Faulty"
    Module = FaultyModule
'''


def timings(root: Path) -> list[TimingRecord]:
    found = read_timings([root])
    assert found.notes == ()
    return list(found.records)


@pytest.fixture(scope="module")
def run_with_models(command_line: CommandServer, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with four models of one configuration."""
    folder = tmp_path_factory.mktemp("fitted")
    fit = ("run", "--methods", "tiny", "--datasets", "parts", "--data-root", data_root, "--out", "kept")
    done = command_line(*fit, "--seeds", "0,1", "--keep-models", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "kept"


@pytest.fixture
def kept(run_with_models: Path, tmp_path: Path) -> Path:
    """A copy of that run folder."""
    return Path(shutil.copytree(run_with_models, tmp_path / "kept"))


QUICK = ("--time-budget", 0.3, "--processes", 2)


@pytest.mark.slow
def test_methods_are_fitted_and_each_row_is_timed_in_processes_of_its_own(
    bench: Command, data_root: Path, tmp_path: Path
) -> None:
    done = bench(
        *("time", "--methods", "tiny", "--datasets", "parts/bolt", "--data-root", data_root, "--out", "out"),
        *("--batch", "1,2", "--device", "cpu", *QUICK),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'GPU columns are blank ("–"), not estimated' in done.stdout
    records = timings(tmp_path / "out")
    assert len(records) == 4
    assert sorted(record.sampling.order for record in records) == list(range(4))
    rows = {batch: [record for record in records if record.setting.batch == batch] for batch in (1, 2)}
    for batch, processes in rows.items():
        assert [record.sampling.process for record in processes] == [0, 1]
        # Interleaved: no row ends before another has begun.
        assert {record.sampling.order // 2 for record in processes} == {0, 1}
        for record in processes:
            samples = read_samples(tmp_path / "out" / "timing" / record.samples)
            assert len(samples.wall_ms) == record.sampling.count >= 3
            assert record.throughput == pytest.approx(batch * len(samples.wall_ms) / samples.wall_ms.sum() * 1e3)
            assert record.event is None
            assert record.setting.precision == "fp32"
            assert record.output_sha256 == records[0].output_sha256
    first = records[0]
    assert (first.subject.method, first.subject.scenario, first.subject.training_steps) == ("tiny", "parts/bolt", 1)
    # Counted with an image in floating point: scaling it to gray levels is a multiplication more.
    assert first.subject.flops == 3 * 32 * 32 * 3
    assert first.machine.gpu is None


@pytest.mark.slow
def test_the_models_of_a_run_are_timed_one_of_each_configuration(bench: Command, kept: Path) -> None:
    done = bench("time", "kept", "--batch", "1", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    records = timings(kept)
    assert len(records) == 2
    described = json.loads(next(kept.glob("cells/tiny-parts-bolt-s0-*/model.json")).read_text())
    assert {record.subject.model_sha256 for record in records} == {described["sha256"]}
    again = bench("time", "kept", "--batch", "1", "--time-budget", 0.3, "--processes", 1)
    assert again.returncode == 0
    assert len(timings(kept)) == 3, "nothing that was measured is lost"


@pytest.mark.slow
def test_a_line_is_timed_by_its_triggers(bench: Command, kept: Path) -> None:
    # Half of the budget is the line's: more triggers than the protocol has passes, as rare misses need many.
    line = ("--line-rate", 5000, "--deadline-ms", 10_000, "--jitter", 0.5)
    done = bench("time", "kept", *line, "--time-budget", 0.5, "--processes", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = timings(kept)
    assert (record.setting.mode, record.setting.batch) == ("line", 1)
    assert record.line is not None
    assert (record.line.rate, record.line.arrivals, record.line.triggers) == (5000, "jitter", 1250)
    assert record.line.missed == 0
    assert record.line.miss_bound == pytest.approx(1 - 0.05 ** (1 / 1250))
    assert record.line.sustainable_rate is None, "1250 triggers show no miss in 10,000"


@pytest.mark.slow
def test_another_backend_or_precision_says_how_exact_it_is(bench: Command, kept: Path, data_root: Path) -> None:
    once = ("--time-budget", 0.3, "--processes", 1)
    # Half precision where this CPU has it; int8 needs a model that was quantised, and asks for none here.
    precisions = ["fp32"] if lacks_instructions("fp16", cpu_features()) else ["fp32", "fp16"]
    both = ("--backend", "eager,onnxruntime", "--precision", ",".join([*precisions, "int8"]))
    pytest.importorskip("onnxruntime")
    done = bench("time", "kept", *both, "--data-root", data_root, *once)
    assert done.returncode == 0, done.stdout + done.stderr
    by_setting = {(record.setting.backend, record.setting.precision): record for record in timings(kept)}
    assert set(by_setting) == {(name, precision) for name in ("eager", "onnxruntime") for precision in precisions}
    assert by_setting["eager", "fp32"].exactness is None
    for setting in by_setting.keys() - {("eager", "fp32")}:
        exactness = by_setting[setting].exactness
        assert exactness is not None
        assert exactness.map_error < 0.01
        assert exactness.flipped == []
        assert set(exactness.metrics) == {"image_au_roc", "au_pro@0.3"}


@pytest.mark.slow
def test_without_the_images_nobody_knows_how_exact_a_row_is(bench: Command, kept: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    once = ("--time-budget", 0.3, "--processes", 1)
    done = bench("time", "kept", "--backend", "onnxruntime", "--data-root", tmp_path / "empty", *once)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = timings(kept)
    assert record.exactness is None
    assert next(reason.text for reason in record.verdict.reasons if reason.check == "E").startswith("how exact it is")


@pytest.mark.slow
def test_what_was_not_quantised_and_what_has_no_fused_form_is_refused(
    bench: Command, kept: Path, data_root: Path
) -> None:
    once = ("--data-root", data_root, "--time-budget", 0.3, "--processes", 1)
    done = bench("time", "kept", "--backend", "openvino", "--precision", "int8", *once)
    assert done.returncode == 3
    assert "--format openvino --precision int8 --allow-flips writes it" in done.stdout
    done = bench("time", "kept", "--fused", *once)
    assert done.returncode == 3
    assert "has no fused form of its own" in done.stdout


@pytest.mark.slow
def test_what_is_asked_for_besides_the_passes_is_in_the_record(bench: Command, kept: Path) -> None:
    once = ("--time-budget", 0.6, "--processes", 1, "--device", "cpu")
    done = bench("time", "kept", *once, "--stages", "--energy", "--after-idle", 0.01)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = timings(kept)
    assert record.stages is not None
    assert record.stages.passes >= 3
    assert record.stages.parts[0].name == "preprocessing"
    assert record.energy is not None
    assert record.energy_mj_per_image is None
    assert "CPU" in record.energy.unknown
    assert record.setting.cache == "warm"
    assert record.after_idle is not None
    assert record.after_idle.seconds == 0.01
    assert len(record.after_idle.milliseconds) == 5

    done = bench("time", "kept", *once, "--cache", "cold")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cold cache" in done.stdout
    cold = timings(kept)[1]
    assert cold.setting.cache == "cold"
    assert cold.stages is None
    assert cold.energy is None

    done = bench("time", "kept", *once, "--mode", "stream")
    assert done.returncode == 0, done.stdout + done.stderr
    stream = timings(kept)[2]
    assert (stream.setting.mode, stream.setting.clock) == ("stream", "host")
    assert stream.setting.region.endswith("back to back")
    samples = read_samples(kept / "timing" / stream.samples)
    assert stream.throughput == pytest.approx(1e3 * len(samples.wall_ms) / samples.wall_ms.sum())


@pytest.mark.slow
def test_a_command_that_is_told_to_end_ends_the_process_that_times(kept: Path, environment: dict[str, str]) -> None:
    arguments = ("time", kept, "--device", "cpu", "--time-budget", "600", "--processes", "1")
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=environment
    ) as command:
        timing = None
        while timing is None and command.poll() is None:
            time.sleep(0.1)
            with suppress(psutil.NoSuchProcess):  # a child that ends while it is looked at
                children = psutil.Process(command.pid).children()
                timing = next((one for one in children if one.cmdline()[-2:] == ["bench.timing.process", "time"]), None)
        assert timing is not None, "the command ended before it timed anything"
        command.terminate()
        said, _ = command.communicate()
    assert command.returncode == 130
    assert "what has been timed is recorded" in said
    with suppress(psutil.NoSuchProcess):  # whoever inherits an ended process may take a while to notice
        assert timing.status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_row_that_cannot_be_timed_costs_no_other(bench: Command, data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    (tmp_path / "tiny_detectors.py").write_text(TINY.read_text())
    fit = ("--datasets", "parts/bolt", "--data-root", data_root, "--out", "out", "--keep-models")
    done = bench("run", "--methods", "faulty.py:Faulty,tiny", *fit)
    assert done.returncode == 0, done.stdout + done.stderr
    once = ("--batch", "1,2", "--time-budget", 0.3, "--processes", 1)

    done = bench("time", "out", *once, TIMING_FAULT="raises")
    assert done.returncode == 3
    assert "two is too many" in done.stdout
    timed = [(record.subject.title, record.setting.batch) for record in timings(tmp_path / "out")]
    assert sorted(timed) == [("Faulty", 1), ("Tiny", 1), ("Tiny", 2)]

    done = bench("time", "out", *once, TIMING_FAULT="killed")
    assert done.returncode == 3
    assert "its process ended with -9" in done.stdout
    assert len(timings(tmp_path / "out")) == 5

    done = bench("time", "out", *once, TIMING_FAULT="zeros")
    assert done.returncode == 0
    for record in timings(tmp_path / "out")[5:]:
        constant = "a map is constant" in [reason.text for reason in record.verdict.reasons]
        assert constant == (record.subject.title == "Faulty")
        assert record.verdict.status == "INVALID" or not constant


@pytest.mark.slow
def test_a_run_times_what_it_has_fitted(
    plugin: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(plugin))
    monkeypatch.setenv("PYTHONPATH", str(plugin))
    quick = dataclasses.replace(protocols.PROTOCOLS["paper"], processes=1)
    monkeypatch.setattr(protocols, "PROTOCOLS", {"paper": quick})
    options = RunOptions(
        methods=("tiny",), datasets="parts/bolt", data_root=data_root, out=tmp_path / "out", device="cpu", time=True
    )
    assert run(options) == 0
    (record,) = timings(tmp_path / "out")
    assert (record.subject.method, record.setting.batch) == ("tiny", 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a run folder whose models are timed, or methods with --methods: one of them"),
        (["out", "--methods", "tiny"], "one of them"),
        (["nowhere"], "no fitted detector is kept in nowhere"),
        (["out", "--input-size", "64"], "--input-size is a matter of the fit"),
        (["--methods", "tiny", "--line-rate", "10"], "pass --line-rate and --deadline-ms together"),
        (["--methods", "tiny", "--backend", "cudagraph"], "--backend cudagraph needs a GPU"),
        (["--methods", "tiny", "--backend", "openvino", "--precision", "fp16"], "openvino does not compute in fp16"),
        (
            ["--methods", "tiny", "--cache", "cold", "--stages"],
            "--cache cold is about passes that are timed one by one",
        ),
        (["--methods", "tiny", "--mode", "device"], "--mode device replays a CUDA graph and needs a GPU"),
        (["--methods", "tiny", "--mode", "line"], "--mode does not take"),
        (["--methods", "tiny", "--mode", "stream", "--protocol", "mvtec_ad2"], "is its owners'"),
        (["--methods", "tiny", "--mode", "stream", "--stages"], "--mode stream goes without --stages"),
        (
            ["--methods", "tiny", "--mode", "stream", "--line-rate", "9", "--deadline-ms", "9"],
            "--line-rate is a mode of its own",
        ),
        (["--methods", "tiny", "--after-idle", "0"], "--after-idle does not take"),
        (["--methods", "tiny", "--cache", "hot"], "--cache does not take"),
        (["--methods", "tiny", "--backend", "compile", "--stages"], "--stages looks into the module"),
        (["--methods", "tiny", "--batch", "0"], "--batch does not take"),
        (["--methods", "tiny", "--input-size", "1x2x3"], "--input-size does not take"),
        (["--methods", "tiny", "--protocol", "fast"], "--protocol does not take"),
    ],
)
def test_what_makes_no_sense_is_refused(bench: Command, arguments: list[str], said: str) -> None:
    done = bench("time", *arguments, "--device", "cpu")
    assert done.returncode == 2
    assert said in done.stderr


def test_without_a_gpu_nothing_is_timed_where_one_is_required(bench: Command) -> None:
    done = bench("time", "--methods", "tiny", "--device", "cpu", "--require-gpu")
    assert done.returncode == 3
    assert "no CUDA device: nothing was timed" in done.stdout
