"""Exported detectors: the module's results, what they say of themselves, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import Command
from torch import nn

from bench.artefacts import exporting, running, writing
from bench.artefacts.description import METADATA_KEY, ArtefactDescription
from bench.artefacts.exporting import export_model
from bench.artefacts.parity import best_threshold, compare
from bench.artefacts.running import Artefact, open_artefact
from bench.artefacts.writing import write_artefact
from bench.commands.export import export
from bench.errors import DataError, UsageError
from bench.options import ExportOptions
from results.store import RunStore

needs_onnx = pytest.mark.skipif(
    any(running.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript or onnxruntime is not installed",
)
needs_openvino = pytest.mark.skipif(running.find_spec("openvino") is None, reason="openvino is not installed")
RUNTIMES = [pytest.param("onnx", marks=needs_onnx), pytest.param("openvino", marks=needs_openvino)]


class Bright(nn.Module):
    """A map of how bright positions are, at half of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.register_buffer("level", torch.tensor(100.0))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.pool((images.float().mean(1) - self.level).abs())
        return maps, maps.flatten(1).amax(1)


def description(**changes: object) -> ArtefactDescription:
    known = {
        "format": "onnx", "method": "bright", "title": "Bright", "source": "Nobody", "config": {"level": 100.0},
        "deviations": [], "precision": "fp32", "input_size": (16, 24), "batch": 2, "scenario": "parts/bolt", "seed": 0,
        "train_images": 6, "fit_key": "0" * 64, "model_sha256": "1" * 64, "thresholds": {"mean+3sd": 4.5},
        "version": "1",
    }  # fmt: skip
    return ArtefactDescription.model_validate({**known, **changes})


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_file_computes_what_the_module_does_and_says_what_it_is(
    kind: str, tmp_path: Path, images: torch.Tensor
) -> None:
    module, said = Bright().eval(), description(format=kind)
    path = tmp_path / f"bright{writing.SUFFIXES[kind]}"  # type: ignore[index]
    assert path in write_artefact(path, module, images[:2], said)
    artefact = open_artefact(path, threads=1)
    assert artefact.description == said
    maps, scores = artefact.predict(images)  # five images by a file that takes two
    expected_maps, expected_scores = module(images)
    torch.testing.assert_close(maps, expected_maps)
    torch.testing.assert_close(scores, expected_scores)


@pytest.fixture
def kept(bench: Command, data_root: Path, tmp_path: Path) -> Path:
    done = bench(
        *("run", "--methods", "tiny", "--datasets", "parts/bolt", "--data-root", data_root, "--out", "run"),
        "--keep-models",
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNTIMES)
def test_an_exported_model_is_evaluated_like_the_run(bench: Command, kept: Path, data_root: Path, kind: str) -> None:
    suffix = writing.SUFFIXES[kind]  # type: ignore[index]
    exported = bench("export", "run", "--format", kind, "--data-root", data_root, "--out", f"tiny{suffix}")
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert "7 test images: maps differ by" in exported.stdout
    assert "; 0 decisions flip at" in exported.stdout
    done = bench("evaluate", "--model", f"tiny{suffix}", "--data-root", data_root, "--out", "again")
    assert done.returncode == 0, done.stdout + done.stderr
    (own,), (again,) = RunStore(kept).records(), RunStore(kept.parent / "again").records()
    assert again.metrics.keys() == own.metrics.keys()
    for name, value in own.metrics.items():
        assert again.metrics[name] == (None if value is None else pytest.approx(value, abs=1e-4)), name
    assert again.deviations == [*own.deviations, f"exported: {kind}, fp32"]
    assert again.title == own.title


@pytest.fixture
def cell(kept: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(plugin))
    return next(kept.glob("cells/*"))


@pytest.mark.slow
def test_what_torch_exports_is_compared_and_not_opened(cell: Path, data_root: Path) -> None:
    done = export_model(ExportOptions(cell, format="torch_export", data_root=data_root))
    assert done.description.parity is not None
    assert done.description.parity.map_error < 1e-6
    (file,) = done.files
    with pytest.raises(UsageError, match="may run code"):
        open_artefact(file, 1)


@pytest.mark.slow
def test_a_file_that_flips_decisions_is_not_written(
    cell: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fault is planted where the exported program is run."""

    class Upside(Artefact):
        def predict(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            maps, scores = super().predict(images)
            return maps, -scores

    monkeypatch.setattr(exporting, "Artefact", Upside)
    out = tmp_path / "out" / "tiny.pt2"
    options = ExportOptions(cell, format="torch_export", data_root=data_root, out=out)
    assert export(options) == 3
    assert "not written: pass --allow-flips" in capsys.readouterr().out
    assert not out.parent.exists() or not list(out.parent.iterdir())
    allowed = export_model(ExportOptions(cell, format="torch_export", data_root=data_root, out=out, allow_flips=True))
    assert out.is_file()
    assert allowed.description.parity is not None
    assert allowed.description.parity.flipped


@pytest.mark.slow
def test_other_files_than_those_of_the_fit_are_refused(bench: Command, kept: Path, data_root: Path) -> None:
    other = kept.parent / "other"
    (other / "parts").mkdir(parents=True)
    (other / "parts" / "bolt").symlink_to(data_root / "parts" / "nut")
    done = bench("export", "run", "--format", "torch_export", "--data-root", other)
    assert done.returncode == 2
    assert "are not those that the model was fitted and evaluated on" in done.stderr


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("gone.onnx", None, UsageError, "there is no file"),
        ("photo.png", b"x", UsageError, "is no exported detector"),
        pytest.param("broken.onnx", b"not a model", DataError, "is damaged, or no ONNX file", marks=needs_onnx),
    ],
)
def test_files_that_are_no_detectors_are_named(
    tmp_path: Path, name: str, content: bytes | None, error: type[Exception], said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said):
        open_artefact(tmp_path / name, 1)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stored", "said"), [(None, "does not say what it is"), ('{"format": "onnx"}', "cannot be read")]
)
def test_a_file_that_does_not_say_what_it_is(
    tmp_path: Path, images: torch.Tensor, stored: str | None, said: str
) -> None:
    import onnx

    write_artefact(tmp_path / "other.onnx", Bright().eval(), images[:2], description())
    model = onnx.load(tmp_path / "other.onnx")
    del model.metadata_props[:]
    if stored is not None:
        onnx.helper.set_model_props(model, {METADATA_KEY: stored})
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(DataError, match=said):
        open_artefact(tmp_path / "other.onnx", 1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: writing.check_packages("onnx"), r"needs onnx and onnxscript.*\n.*anomaly-bench\[export\]"),
        (lambda: writing.check_packages("openvino"), r"needs openvino.*\n.*anomaly-bench\[openvino\]"),
        (lambda: running.onnx_session(b"", 1), r"ONNX Runtime is not installed\n.*anomaly-bench\[export\]"),
    ],
)
def test_a_missing_package_says_what_to_install(
    call: Callable[[], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (writing, running):
        monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=said):
        call()


def test_flips_are_counted_at_the_best_threshold() -> None:
    scores = torch.tensor([0.1, 0.2, 0.6, 0.7])
    maps = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0))
    changed = torch.tensor([0.1, 0.5, 0.6, 0.3])
    parity = compare((maps, scores), (maps + 0.01, changed), [False, False, True, True], ["a", "b", "c", "d"])
    assert parity.threshold == pytest.approx(0.4)
    assert parity.flipped == ["b", "d"]
    assert parity.score_error == pytest.approx(0.4 / 0.6)
    assert parity.map_error == pytest.approx(0.01 / float(maps.max() - maps.min()), rel=1e-4)


@pytest.mark.parametrize(
    ("scores", "anomalous", "threshold"),
    [
        ([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], 2.5),
        ([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], 1.5),
        ([2.0, 2.0, 2.0], [0, 1, 1], 2.0),
        ([1.0, 5.0], [1, 0], 1.0),
    ],
)
def test_the_threshold_has_the_highest_f1(scores: list[float], anomalous: list[int], threshold: float) -> None:
    found = best_threshold(np.array(scores), np.array(anomalous, bool))
    assert found == pytest.approx(threshold)


def test_the_description_is_json() -> None:
    assert json.loads(description().model_dump_json())["input_size"] == [16, 24]
