"""The command line in this process: what it refuses, and what it lists."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import REPOSITORY, Command
from PIL import Image

from bench.cli import main
from bench.commands.distill.efficientad import efficientad
from bench.commands.distill.patch_teacher import patch_teacher
from methods.common import precision
from methods.common.patch_distillation import PatchTeacherConfig
from methods.download import Download
from methods.efficientad.distillation import DistillationConfig
from methods.registry import load_method
from methods.weights import catalogue

Invoke = Callable[..., tuple[int, str]]
DISTILL = ("distill", "efficientad")


@pytest.fixture
def invoke(
    plugin: Path,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Invoke:
    """Run the command line in an empty folder; return its exit code and everything it printed."""
    monkeypatch.syspath_prepend(str(plugin))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA", str(data_root))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out + output.err

    return call


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, bench.cli\n"
        "sys.argv = ['bench', '--help']\n"
        "try:\n    bench.cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'pydantic', 'faiss', 'numba', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "doctor" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run"], "no methods named"),
        (["run", "--methods", "tinny"], "did you mean 'tiny'?"),
        (["run", "--methods", "tiny", "--datasets", "parts/bold"], "did you mean parts/bolt"),
        (["run", "--methods", "tiny", "--set", "tiny.nrom=squared"], "did you mean 'norm'?"),
        (["run", "--methods", "tiny", "--set", "tiny.norm=cubed"], "does not take norm='cubed'"),
        (["run", "--methods", "tiny", "--set", "tiny.norm"], "METHOD.FIELD=VALUE"),
        (["run", "--methods", "tiny", "--set", "patchcore.backbone=x"], "does not take part"),
        (["run", "--methods", "tiny", "--preset", "embeded"], "did you mean 'embedded'?"),
        (["run", "--methods", "tiny", "--seeds", "one"], "--seeds does not take"),
        (["run", "--methods", "tiny", "--train-scale", "0"], "--train-scale does not take"),
        (["run", "--methods", "tiny", "--device", "tpu"], "--device does not take"),
        (["run", "--methods", "tiny", "--device", "cuda:99"], "does not exist here"),
        (["run", "--methods", "tiny", "--data-root", "nowhere"], "does not exist"),
        (["run", "--methods", "tiny", "--penalty-images", "nowhere"], "nowhere does not exist"),
        (["run", "--methods", "tiny", "--config", "nowhere.toml"], "cannot read the configuration"),
        (["run", "--methods", "tiny", "--out", "file/out"], "cannot write to file/out"),
        (["run", "--methods", "tiny", "--precision", "fp8"], "--precision does not take 'fp8'"),
        (["run", "--methods", "tiny", "--json"], "--json is the form in which --dry-run prints"),
        (["evaluate", ".", "--definitions", "some"], "--definitions does not take 'some'"),
        (["methods", "tinny"], "did you mean 'tiny'?"),
        (["report", "nowhere"], "no records in nowhere"),
        (
            ["distill", "efficientad", "--photographs", ".", "--out", "x.safetensors", "--size", "L"],
            "--size does not take 'L'",
        ),
        (
            ["distill", "efficientad", "--photographs", ".", "--out", "no/x.safetensors"],
            "does not exist; make it first",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(
    invoke: Invoke, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "file").touch()
    code, output = invoke(*arguments)
    assert code == 2
    assert expected in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_weights_out_of_reach_say_who_needs_them_and_what_needs_none(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = Download("http://127.0.0.1:9/wide_resnet101_2.pth", "0" * 64)
    default = catalogue.BACKBONES["wide_resnet101_2"]
    monkeypatch.setitem(catalogue.BACKBONES, "wide_resnet101_2", dataclasses.replace(default, download=offline))
    run = ("run", "--methods", "patchcore", "--datasets", "parts/nut", "--weights-dir", "weights", "--dry-run")
    code, output = invoke(*run)
    assert code == 2
    assert "patchcore: cannot get wide_resnet101_2.pth: download failed" in output
    assert "--preset embedded, or --set METHOD.backbone=efficientnet_lite0" in output
    assert invoke(*run, "--preset", "embedded")[0] == 0
    assert invoke(*run, "--set", "patchcore.backbone=efficientnet_lite0")[0] == 0


def planned(invoke: Invoke, *more: object) -> list[dict[str, Any]]:
    """The cells that a run would have."""
    code, output = invoke("run", "--methods", "tiny", "--datasets", "parts/nut", "--dry-run", "--json", *more)
    assert code == 0, output
    cells: list[dict[str, Any]] = json.loads(output)["cells"]
    return cells


def test_flags_win_over_the_configuration_file(invoke: Invoke, tmp_path: Path) -> None:
    config = tmp_path / "bench.toml"
    config.write_text('methods = ["patchcore"]\nseeds = [4, 5]\ntrain-scale = 0.5\nset.tiny.side = 16\n')
    (cell,) = planned(invoke, "--config", config, "--seeds", "7", "--set", "tiny.training_steps=60")
    assert (cell["method"], cell["seed"], cell["training_steps"]) == ("tiny", 7, 30)
    assert (cell["config"]["side"], cell["config"]["training_steps"]) == (16, 60)
    config.write_text('method = ["tiny"]\n')
    code, output = invoke("run", "--config", config)
    assert code == 2
    assert "did you mean 'methods'?" in output


def test_epochs_are_as_many_steps_as_the_images_make_them(invoke: Invoke) -> None:
    simplenet = ("--methods", "simplenet", "--preset", "embedded", "--set", "simplenet.batch_size=4")
    (cell,) = planned(invoke, *simplenet)
    assert cell["training_steps"] == 160 * 2  # of the six images
    (cell,) = planned(invoke, *simplenet, "--hold-out", "--train-scale", "0.05", "--set", "simplenet.batch_size=5")
    assert cell["training_steps"] == 8
    assert "8 of 160 epochs" in cell["deviations"]


def test_a_dry_run_writes_nothing(invoke: Invoke, tmp_path: Path) -> None:
    code, output = invoke("run", "--methods", "tiny", "--seeds", "0,1,2", "--dry-run")
    assert code == 0
    assert "6 of 6 cells to run, 120 training steps; run folder: runs/" in output
    assert all(cell["due"] == "to run" and cell["record"] is None for cell in planned(invoke))
    assert not list(tmp_path.iterdir())


def test_what_distinguishes_a_row_is_planned_with_it(invoke: Invoke) -> None:
    (cell,) = planned(invoke)
    assert (cell["deviations"], cell["precision"], cell["tf32"]) == ([], "fp32", False)
    (cell,) = planned(invoke, "--precision", "bf16", "--force", "--tf32", "--train-scale", "0.5")
    assert (cell["precision"], cell["tf32"]) == ("bf16", True)
    assert cell["deviations"] == ["10 of 20 training steps", "precision bf16", "TF32"]


def test_a_fused_network_shows_in_the_row(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_method("tiny"), "fused", "batch norms")
    (cell,) = planned(invoke)
    assert cell["deviations"] == ["algebraically fused: batch norms"]


def test_a_precision_that_this_cpu_only_emulates_is_refused_unless_forced(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_features", lambda: frozenset({"avx2"}))
    code, output = invoke("run", "--methods", "tiny", "--precision", "bf16", "--device", "cpu", "--dry-run")
    assert code == 2
    assert "bf16 is not supported by this CPU" in output
    assert "--force" in output
    assert planned(invoke, "--precision", "bf16", "--device", "cpu", "--force")


def test_methods_and_their_options_are_listed(invoke: Invoke) -> None:
    code, output = invoke("methods")
    assert code == 0
    assert "EfficientAD-S" in output
    assert "Nobody, nowhere, 2026" in output
    code, output = invoke("methods", "tiny")
    assert code == 0
    assert "How it measures a difference." in output


def test_data_sets_are_listed(invoke: Invoke) -> None:
    code, output = invoke("datasets")
    assert code == 0
    assert "bolt, nut" in output
    assert "2 scenarios" in output
    code, output = invoke("datasets", "--data-root", "nowhere")
    assert code == 0
    assert "Nothing found" in output


def test_doctor_says_what_to_do(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, output = invoke("doctor", "--weights-dir", "no-weights")
    assert code == 0
    assert "wide_resnet101_2" in output
    url = "https://download.pytorch.org/models/wide_resnet101_2-32ee1156.pth"
    assert f"\nwide_resnet101_2: Downloaded on first use. Offline, bring {url} with bench weights import, or" in output
    assert "parts" in output
    assert "bf16 on the CPU" in output
    assert "torchvision::" not in output  # a torchvision of another build than torch's serves


@pytest.mark.parametrize(
    ("command", "run", "config"),
    [("efficientad", efficientad, DistillationConfig), ("patch-teacher", patch_teacher, PatchTeacherConfig)],
)
def test_every_option_of_a_distillation_is_a_flag(
    invoke: Invoke, command: str, run: Callable[..., int], config: type[DistillationConfig | PatchTeacherConfig]
) -> None:
    _, output = invoke("distill", command, "--help")
    text = " ".join(output.replace("│", " ").split())
    for field in dataclasses.fields(config):
        entry = text.split(f" --{field.name.replace('_', '-')} ")[1].partition(" --")[0]
        shown = f"{field.default:g}" if isinstance(field.default, float) else field.default
        assert (f"Default: {shown}." in entry) == (shown is not None)
    summary = str(run.__doc__).splitlines()[0]
    assert summary in output
    assert summary in invoke("distill", "--help")[1]


@pytest.mark.slow
def test_a_distillation_writes_teacher_and_card(invoke: Invoke, data_root: Path, tmp_path: Path) -> None:
    options = ("--backbone", "resnet18", "--backbone-weights", "random", "--steps", 2, "--batch-size", 1)
    photographs = data_root / "parts/bolt/test/good"
    code, output = invoke(
        "distill", "efficientad", "--photographs", photographs, "--out", "teacher.safetensors", *options
    )
    assert code == 0, output
    assert "step 2 of 2, loss" in output
    assert (tmp_path / "teacher.safetensors").exists()
    assert "resnet18" in (tmp_path / "teacher.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "more"),
    [
        ("efficientad", ("--size", "S", "--backbone", "efficientnet_lite0", "--crop", "64")),
        ("patch-teacher", ("--backbone", "efficientnet_lite0")),
        ("vq", ("--crop", "32")),
    ],
)
def test_each_distillation_writes_a_network_and_its_card(
    bench: Command, tmp_path: Path, command: str, more: tuple[str, ...]
) -> None:
    (tmp_path / "photographs").mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photographs" / f"{number}.png")
    fixed = ("--photographs", "photographs", "--out", "network.safetensors", "--steps", "1", "--batch-size", "2")
    done = bench("distill", command, *fixed, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Use it with --set" in done.stdout
    assert (tmp_path / "network.safetensors").stat().st_size > 1e6
    assert f"bench distill {command} --photographs FOLDER" in (tmp_path / "network.md").read_text()
