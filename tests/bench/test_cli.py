"""The command line in this process: what it refuses, and what it lists."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import REPOSITORY

from bench.cli import main
from methods.common import backbones
from methods.efficientad.distillation import DistillationConfig
from methods.weights.files import Download

Invoke = Callable[..., tuple[int, str]]


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
        (["methods", "tinny"], "did you mean 'tiny'?"),
        (["report", "nowhere"], "no records in nowhere"),
        (["distill", "--photographs", ".", "--out", "x.safetensors", "--size", "L"], "--size does not take 'L'"),
        (["distill", "--photographs", ".", "--out", "no/x.safetensors"], "does not exist; make it first"),
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


def test_weights_out_of_reach_say_who_needs_them_and_what_needs_none(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = Download("http://127.0.0.1:9/wide_resnet101_2.pth", "0" * 64)
    default = backbones.BACKBONES["wide_resnet101_2"]
    monkeypatch.setitem(backbones.BACKBONES, "wide_resnet101_2", dataclasses.replace(default, download=offline))
    run = ("run", "--methods", "patchcore", "--datasets", "parts/nut", "--weights-dir", "weights", "--dry-run")
    code, output = invoke(*run)
    assert code == 2
    assert "patchcore: cannot get wide_resnet101_2.pth: download failed" in output
    assert "--preset embedded, or --set METHOD.backbone=efficientnet_lite0" in output
    assert invoke(*run, "--preset", "embedded")[0] == 0
    assert invoke(*run, "--set", "patchcore.backbone=efficientnet_lite0")[0] == 0


def test_flags_win_over_the_configuration_file(invoke: Invoke, tmp_path: Path) -> None:
    config = tmp_path / "bench.toml"
    config.write_text(
        'methods = ["tiny"]\ndatasets = "parts/nut"\nseeds = [4, 5]\ntrain-scale = 0.5\nset.tiny.side = 16\n'
    )
    code, output = invoke("run", "--config", config, "--dry-run", "--seeds", "7", "--set", "tiny.training_steps=60")
    assert code == 0
    assert [line.split("│")[1:5] for line in output.splitlines() if "parts/nut" in line] == [
        [" tiny   ", " parts/nut ", "    7 ", "    30 "]
    ]
    config.write_text('method = ["tiny"]\n')
    code, output = invoke("run", "--config", config)
    assert code == 2
    assert "did you mean 'methods'?" in output


def test_a_dry_run_writes_nothing(invoke: Invoke, tmp_path: Path) -> None:
    code, output = invoke("run", "--methods", "tiny", "--seeds", "0,1,2", "--dry-run")
    assert code == 0
    assert output.count("to run") == 7
    assert "6 of 6 cells to run, 120 training steps; run folder: runs/" in output
    assert not list(tmp_path.iterdir())


def test_keys_depend_on_what_determines_a_result(invoke: Invoke) -> None:
    def key(*more: object) -> str:
        arguments = ("run", "--methods", "tiny", "--datasets", "parts/nut", "--dry-run", *more)
        return next(line.split("│")[6] for line in invoke(*arguments)[1].splitlines() if "parts/nut" in line)

    keys = [key(), key("--seeds", 1), key("--train-scale", 0.5), key("--set", "tiny.side=48")]
    assert len(set(keys)) == len(keys)
    assert key("--out", "elsewhere", "--workers", 3, "--keep-maps") == keys[0]


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
    assert f"\nwide_resnet101_2: Downloaded on first use. Offline, put {url} into no-weights, or" in output
    assert "parts" in output
    assert "bf16 on the CPU" in output
    assert "torchvision::" not in output  # a torchvision of another build than torch's serves


def test_every_option_of_a_distillation_is_a_flag(invoke: Invoke) -> None:
    _, output = invoke("distill", "--help")
    for field in dataclasses.fields(DistillationConfig):
        line = next(line for line in output.splitlines() if f"--{field.name.replace('_', '-')} " in line)
        assert f"[default: ({field.default})]" in line


def test_a_distillation_writes_teacher_and_card(invoke: Invoke, data_root: Path, tmp_path: Path) -> None:
    options = ("--backbone", "resnet18", "--backbone-weights", "random", "--steps", 2, "--batch-size", 1)
    photographs = data_root / "parts/bolt/test/good"
    code, output = invoke("distill", "--photographs", photographs, "--out", "teacher.safetensors", *options)
    assert code == 0, output
    assert "step 2 of 2, loss" in output
    assert (tmp_path / "teacher.safetensors").exists()
    assert "resnet18" in (tmp_path / "teacher.md").read_text()
