"""Run exported detectors: ONNX by ONNX Runtime, OpenVINO's by OpenVINO, on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from bench.artefacts.description import INPUT, METADATA_KEY, ArtefactDescription
from bench.errors import DataError, UsageError

Run = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes images (B, 3, H, W) to maps (B, h, w) and scores (B,)."""


@dataclass(frozen=True, eq=False)
class Artefact:
    """An exported detector, ready to run.

    Attributes:
        description: What it says of itself.
        run: Takes exactly ``description.batch`` images.
    """

    description: ArtefactDescription
    run: Run

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps and scores of any number of images; the last call is filled up with the last image."""
        maps, scores = [], []
        for part in images.split(self.description.batch):
            lacking = self.description.batch - len(part)
            filled = torch.cat([part, part[-1:].expand(lacking, -1, -1, -1)]) if lacking else part
            some_maps, some_scores = self.run(filled)
            maps.append(some_maps[: len(part)])
            scores.append(some_scores[: len(part)])
        return torch.cat(maps), torch.cat(scores)


def open_artefact(path: Path, threads: int) -> Artefact:
    """Open an exported detector.

    Args:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` beside it.
        threads: CPU threads.

    Raises:
        UsageError: It is another kind of file, or what runs it is not installed.
        DataError: It is damaged, or was not written by ``bench export``.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}: give an exported detector, .onnx or .xml")
    if path.suffix == ".pt2":
        raise UsageError(
            f"{path} cannot be evaluated: PyTorch unpickles parts of such files, which may run code\n"
            "  Export the same model with --format onnx."
        )
    if path.suffix == ".onnx":
        session = _onnx_session(path, threads)
        stored = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        return Artefact(_described(path, stored), onnx_runner(session))
    if path.suffix == ".xml":
        model = _openvino_core(threads).read_model(path)
        stored = model.get_rt_info(METADATA_KEY).astype(str) if model.has_rt_info(METADATA_KEY) else None
        return Artefact(_described(path, stored), openvino_runner(model, threads, "f32"))
    raise UsageError(f"{path} is no exported detector: .onnx and .xml are evaluated")


def onnx_session(content: bytes | str, threads: int) -> Any:
    """A session of ONNX Runtime with so many threads, which do not spin while they wait.

    Raises:
        UsageError: ONNX Runtime is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise UsageError("ONNX Runtime is not installed\n  Install anomaly-bench[export].")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def onnx_runner(session: Any) -> Run:
    """Run a session."""

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        maps, scores = session.run(None, {INPUT: images.numpy()})
        return torch.from_numpy(maps), torch.from_numpy(scores)

    return run


def openvino_runner(model: Any, threads: int, precision: str) -> Run:
    """Compile a model of OpenVINO for the CPU and run it.

    Args:
        model: Read or converted.
        threads: CPU threads.
        precision: ``f32`` or ``bf16``: what the plug-in may compute in.
    """
    compiled = _openvino_core(threads).compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    )
    request = compiled.create_infer_request()

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        results = request.infer({INPUT: np.ascontiguousarray(images.numpy())}, share_inputs=True)
        maps, scores = (torch.from_numpy(np.array(value)) for value in results.values())
        return maps, scores

    return run


def _openvino_core(threads: int) -> Any:
    if find_spec("openvino") is None:
        raise UsageError("OpenVINO is not installed\n  Install anomaly-bench[openvino].")
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
    return core


def _onnx_session(path: Path, threads: int) -> Any:
    try:
        return onnx_session(str(path), threads)
    except UsageError:
        raise
    except Exception as error:  # ONNX Runtime has no class of errors of its own
        raise DataError(f"{path} is damaged, or no ONNX file: {str(error).splitlines()[0]}") from error


def _described(path: Path, stored: str | None) -> ArtefactDescription:
    if not stored:
        raise DataError(f"{path} does not say what it is: bench export writes that into the file")
    try:
        return ArtefactDescription.model_validate_json(stored)
    except ValidationError as error:
        raise DataError(f"{path}: what it says of itself cannot be read ({error.error_count()} problems)") from error
