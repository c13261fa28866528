"""Exported detectors: the module's results, what they say of themselves, what is refused."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import Command, CommandServer
from torch import nn

from bench.artefacts import running, writing
from bench.artefacts.description import METADATA_KEY, ArtefactDescription
from bench.artefacts.exporting import export_model
from bench.artefacts.parity import best_threshold, compare
from bench.artefacts.running import Artefact, Run, open_artefact
from bench.artefacts.writing import OpenVinoProgram, TorchProgram, quantise, translate
from bench.commands.export import export
from bench.errors import DataError, UsageError
from bench.options import ExportOptions
from bench.scoring import AnomalyMaps
from methods.common.precision import CPU_INSTRUCTIONS, cpu_features
from methods.errors import MethodError
from results.store import RunStore

needs_onnx = pytest.mark.skipif(
    any(running.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript or onnxruntime is not installed",
)
needs_openvino = pytest.mark.skipif(running.find_spec("openvino") is None, reason="openvino is not installed")
needs_nncf = pytest.mark.skipif(
    any(running.find_spec(name) is None for name in ("openvino", "nncf")), reason="openvino or nncf is not installed"
)
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


def some_names(images: torch.Tensor) -> list[str]:
    return [f"image {number}" for number in range(len(images))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_file_computes_what_the_module_does_and_says_what_it_is(
    kind: str, tmp_path: Path, images: torch.Tensor
) -> None:
    module, said = Bright().eval(), description(format=kind)
    path = tmp_path / f"bright{writing.SUFFIXES[kind]}"  # type: ignore[index]
    program = translate(kind, module, images[:2])  # type: ignore[arg-type]
    run = program.runner(1)  # what is compared is what is written, and neither changes the other
    assert path in program.write(path, said.model_dump_json())
    artefact = open_artefact(path, threads=1)
    assert artefact.description == said
    predicted = artefact.predict(images, some_names(images))  # five images by a file that takes two
    expected_maps, expected_scores = module(images)
    np.testing.assert_allclose(np.stack(predicted.maps), expected_maps, rtol=1e-5)
    np.testing.assert_allclose(predicted.scores, expected_scores, rtol=1e-5)
    np.testing.assert_array_equal(predicted.maps[:2], run(images[:2])[0])


class Layers(nn.Module):
    """A small network, and how far from a vector its features are."""

    networks = ("network",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3))
        self.register_buffer("normal", torch.rand(1, 32))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.network(images.float() / 255).permute(0, 2, 3, 1)
        maps = (features @ self.normal.T)[..., 0]
        return maps, maps.flatten(1).amax(1)


@needs_openvino
@pytest.mark.slow
@pytest.mark.parametrize(
    "precision",
    [
        pytest.param(
            "bf16",
            marks=pytest.mark.skipif(
                CPU_INSTRUCTIONS["bf16"].isdisjoint(cpu_features()), reason="this CPU has no bfloat16"
            ),
        ),
        pytest.param("int8", marks=needs_nncf),
    ],
)
def test_openvino_computes_in_the_precision_that_the_file_names(
    precision: str, tmp_path: Path, images: torch.Tensor
) -> None:
    module, path = Layers().eval().requires_grad_(False), tmp_path / "layers.xml"
    program = translate("openvino", module, images[:2], precision)  # type: ignore[arg-type]
    if precision == "int8":
        program = quantise(program, images[:4])
    program.write(path, description(format="openvino", precision=precision).model_dump_json())
    maps = np.stack(open_artefact(path, 1).predict(images, some_names(images)).maps)
    expected = module(images)[0].numpy()
    error = np.abs(maps - expected).max() / np.ptp(expected)
    assert 1e-4 < error < 0.1


@needs_nncf
@pytest.mark.slow
def test_distances_are_not_quantised(images: torch.Tensor) -> None:
    plain = translate("openvino", Layers().eval().requires_grad_(False), images[:2])
    program = quantise(plain, images[:4])
    assert isinstance(program, OpenVinoProgram)
    types = [node.get_type_name() for node in program.model.get_ordered_ops()]
    assert (types.count("Convolution"), types.count("MatMul")) == (2, 1)
    assert types.count("FakeQuantize") == 2  # of what each convolution takes; its weights are constants by now


@pytest.fixture(scope="module")
def run_with_model(command_line: CommandServer, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    fit = ("run", "--methods", "tiny", "--datasets", "parts/bolt", "--data-root", data_root, "--out", "run")
    done = command_line(*fit, "--keep-models", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture
def kept(run_with_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_with_model, tmp_path / "run"))


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
    assert (again.title, again.training_steps, again.train_scale) == (own.title, own.training_steps, own.train_scale)
    for name in ("image_au_roc", "au_pro@0.3"):
        assert f"{name}: {own.metrics[name]:.6f} by the module" in exported.stdout


@pytest.fixture
def cell(kept: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(plugin))
    return next(kept.glob("cells/*"))


@pytest.mark.slow
def test_what_torch_exports_is_compared_and_not_opened(cell: Path, data_root: Path) -> None:
    done = export_model(cell, ExportOptions([cell], format="torch_export", data_root=data_root))
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
    real = TorchProgram.runner

    def upside_down(self: TorchProgram, threads: int) -> Run:
        run = real(self, threads)
        return lambda images: (run(images)[0], -run(images)[1])

    monkeypatch.setattr(TorchProgram, "runner", upside_down)
    out = tmp_path / "out" / "tiny.pt2"
    options = ExportOptions([cell], format="torch_export", data_root=data_root, out=out)
    assert export(options) == 3
    assert "not written: pass --allow-flips" in capsys.readouterr().out
    assert not out.parent.exists() or not list(out.parent.iterdir())
    allowed = export_model(cell, dataclasses.replace(options, allow_flips=True))
    assert out.is_file()
    assert allowed.description.parity is not None
    assert allowed.description.parity.flipped
    own, other = allowed.description.parity.metrics["image_au_roc"]
    assert other == pytest.approx(1 - own)


@pytest.mark.slow
def test_all_models_of_a_run_are_exported_and_what_cannot_be_costs_no_other(
    bench: Command, data_root: Path, tmp_path: Path
) -> None:
    done = bench(
        *("run", "--methods", "tiny", "--datasets", "parts", "--data-root", data_root, "--out", "two"),
        "--keep-models",
    )
    assert done.returncode == 0, done.stderr
    first, second = sorted((tmp_path / "two").glob("cells/*"))
    one_file = bench("export", "two", "--format", "torch_export", "--data-root", data_root, "--out", "all.pt2")
    assert one_file.returncode == 2
    assert f"two/cells/{second.name}" in one_file.stderr
    (first / "model.safetensors").write_bytes(b"damaged")
    exported = bench("export", "two", "--format", "torch_export", "--data-root", data_root)
    assert exported.returncode == 3
    assert f"{first.name}\nnot written: " in exported.stdout
    assert "→" in exported.stdout
    assert [path.parent for path in (tmp_path / "two").glob("cells/*/*.pt2")] == [second]


@needs_nncf
@pytest.mark.slow
def test_eight_bits_that_cut_off_defects_are_not_written(cell: Path, data_root: Path, tmp_path: Path) -> None:
    """The defects are brighter than the normal images by which ranges are chosen: they come to look like these."""
    out = tmp_path / "tiny.xml"
    options = ExportOptions([cell], "openvino", "int8", data_root=data_root, out=out, batch=4)
    refused = export_model(cell, options)
    assert (refused.files, out.exists()) == ((), False)
    said = export_model(cell, dataclasses.replace(options, allow_flips=True)).description
    assert said.parity is not None
    assert said.parity.flipped
    assert all(name.startswith(("test/dent", "test/stain")) for name in said.parity.flipped)
    assert said.run_with.startswith("INFERENCE_PRECISION_HINT=f32")
    assert open_artefact(out, 1).description == said


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
        pytest.param("broken.onnx", b"not a model", DataError, "is damaged, or no such file", marks=needs_onnx),
        pytest.param("broken.xml", b"<net", DataError, "is damaged, or no such file", marks=needs_openvino),
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

    translate("onnx", Bright().eval(), images[:2]).write(tmp_path / "other.onnx", "")
    model = onnx.load(tmp_path / "other.onnx")
    del model.metadata_props[:]
    if stored is not None:
        onnx.helper.set_model_props(model, {METADATA_KEY: stored})
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(DataError, match=said):
        open_artefact(tmp_path / "other.onnx", 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNTIMES)
def test_a_file_whose_description_is_of_another_is_refused(kind: str, tmp_path: Path, images: torch.Tensor) -> None:
    path = tmp_path / f"bright{writing.SUFFIXES[kind]}"  # type: ignore[index]
    said = description(format=kind, input_size=(24, 16))
    translate(kind, Bright().eval(), images[:2]).write(path, said.model_dump_json())  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"\[2, 3, 16, 24\], and says that it takes uint8 \[2, 3, 24, 16\]"):
        open_artefact(path, 1)


@needs_openvino
@pytest.mark.slow
def test_weights_that_are_missing_beside_a_graph(tmp_path: Path, images: torch.Tensor) -> None:
    said = description(format="openvino").model_dump_json()
    _, weights = translate("openvino", Layers().eval(), images[:2]).write(tmp_path / "alone.xml", said)
    weights.unlink()
    with pytest.raises(DataError, match="is damaged"):
        open_artefact(tmp_path / "alone.xml", 1)


@pytest.mark.parametrize("wrong", [torch.zeros(1, 3, 16, 25, dtype=torch.uint8), torch.zeros(1, 3, 16, 24)])
def test_images_of_another_size_or_type_are_refused(wrong: torch.Tensor) -> None:
    artefact = Artefact(description(), Bright())
    with pytest.raises(UsageError, match=r"takes uint8 images \(N, 3, 16, 24\), not (uint8|float32) \(1, 3, 16, 2"):
        artefact.predict(wrong, ["one"])


def test_scores_that_are_no_numbers_name_their_image(images: torch.Tensor) -> None:
    def run(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps, scores = Bright()(part)
        return maps, torch.where((part == images[3]).flatten(1).all(1), torch.nan, scores)

    with pytest.raises(MethodError, match="first for image 3"):
        Artefact(description(), run).predict(images, some_names(images))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: writing.check_format("onnx", "fp32"), r"needs onnx and onnxscript.*\n.*anomaly-bench\[export\]"),
        (lambda: writing.check_format("openvino", "fp32"), r"needs openvino, .*\n.*anomaly-bench\[openvino\]"),
        (lambda: writing.check_format("openvino", "int8"), r"needs openvino and nncf, .*\n.*anomaly-bench\[openvino\]"),
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


@pytest.mark.parametrize(("kind", "precision"), [("onnx", "bf16"), ("openvino", "fp16"), ("torch_export", "int8")])
def test_what_a_runtime_does_not_compute_in_is_refused(kind: str, precision: str) -> None:
    with pytest.raises(UsageError, match=f"{kind} is not written in {precision}\n  Allowed with it: fp32"):
        writing.check_format(kind, precision)  # type: ignore[arg-type]


@needs_onnx
def test_a_detector_too_large_for_onnx_is_told_where_to_go(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_LARGEST_ONNX", 3)
    with pytest.raises(UsageError, match="less than 2 GiB\n  Pass --format openvino"):
        translate("onnx", Bright().eval(), images[:1])


def test_only_euclidean_distances_are_translated() -> None:
    with pytest.raises(ValueError, match=r"of the order 1.0 are not translated"):
        writing._distances(None, None, 1.0)


@pytest.mark.parametrize("before", [None, "no"])
def test_converters_take_themselves_to_be_tested_and_report_nothing(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    if before is not None:
        monkeypatch.setenv("CI", before)
    with writing._quiet():
        assert os.environ["CI"] == "true"
    assert os.environ.get("CI") == before


def test_a_file_is_called_as_its_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not end with \.pt2"):
        export_model(tmp_path, ExportOptions([tmp_path], format="torch_export", out=tmp_path / "model.onnx"))


def maps_of(maps: torch.Tensor, scores: list[float]) -> AnomalyMaps:
    return AnomalyMaps(list(maps.numpy()), np.array(scores))


def test_flips_are_counted_at_the_best_threshold() -> None:
    maps = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0))
    plain, other = maps_of(maps, [0.1, 0.2, 0.6, 0.7]), maps_of(maps + 0.01, [0.1, 0.5, 0.6, 0.3])
    parity = compare(plain, other, [False, False, True, True], ["a", "b", "c", "d"])
    assert parity.threshold == pytest.approx(0.4)
    assert parity.flipped == ["b", "d"]
    assert parity.score_error == pytest.approx(0.4 / 0.6)
    assert parity.map_error == pytest.approx(0.01 / float(maps.max() - maps.min()), rel=1e-4)


@pytest.mark.parametrize(
    ("scores", "anomalous", "threshold"),
    [
        ([1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1], 2.5),
        ([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], 1.5),
        ([2.0, 2.0, 2.0], [0, 1, 1], 1.5),
        ([1.0, 5.0], [1, 0], -1.0),
    ],
)
def test_the_threshold_has_the_highest_f1(scores: list[float], anomalous: list[int], threshold: float) -> None:
    found = best_threshold(np.array(scores), np.array(anomalous, bool))
    assert found == pytest.approx(threshold)


def test_maps_of_another_size_are_no_rounding() -> None:
    plain, other = maps_of(torch.zeros(1, 3, 3), [0.0]), maps_of(torch.zeros(1, 4, 3), [0.0])
    with pytest.raises(MethodError, match=r"the map of a has \(4, 3\) values, that of the plain module \(3, 3\)"):
        compare(plain, other, [True], ["a"])


def test_the_description_is_json() -> None:
    assert json.loads(description().model_dump_json())["input_size"] == [16, 24]
