"""Run exported detectors: ONNX by ONNX Runtime, OpenVINO's by OpenVINO, on the CPU."""

from collections.abc import Callable, Sequence
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
from bench.scoring import AnomalyMaps
from methods.errors import MethodError

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

    def predict(self, images: Tensor, names: Sequence[str]) -> AnomalyMaps:
        """Maps and scores of any number of images; the last call is filled up with the last image.

        Args:
            images: uint8 (N, 3, H, W) of ``description.input_size``.
            names: Of the images, in messages.

        Raises:
            MethodError: A map or a score is NaN or infinite; names the first image.
            UsageError: The images are of another size or type.
        """
        size = self.description.input_size
        if images.dtype != torch.uint8 or images.shape[1:] != (3, *size):
            raise UsageError(
                f"this detector takes uint8 images (N, 3, {size[0]}, {size[1]}), not "
                f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
            )
        return predict_by(self.run, images, self.description.batch, names)


def predict_by(run: Run, images: Tensor, batch: int, names: Sequence[str]) -> AnomalyMaps:
    """Maps and scores of any number of images; the last call is filled up with the last image.

    Args:
        run: Takes exactly ``batch`` images.
        images: (N, 3, H, W).
        batch: Images per call.
        names: Of the images, in messages.

    Raises:
        MethodError: A map or a score is NaN or infinite; names the first image.
    """
    maps, scores = [], []
    for part in images.split(batch):
        lacking = batch - len(part)
        filled = torch.cat([part, part[-1:].expand(lacking, -1, -1, -1)]) if lacking else part
        some_maps, some_scores = run(filled)
        maps.append(some_maps[: len(part)].float().cpu())
        scores.append(some_scores[: len(part)].double().cpu())
    all_maps, all_scores = torch.cat(maps), torch.cat(scores)
    finite = all_maps.isfinite().flatten(1).all(1) & all_scores.isfinite()
    if not finite.all():
        first = names[int((~finite).nonzero()[0])]
        raise MethodError(f"this form of the detector gives NaN or infinite anomaly scores, first for {first}")
    return AnomalyMaps(list(all_maps.numpy()), all_scores.numpy())


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
        session = _opened(path, lambda: onnx_session(str(path), threads))
        description = _described(path, session.get_modelmeta().custom_metadata_map.get(METADATA_KEY))
        image = session.get_inputs()[0]
        _check_input(path, description, image.shape, image.type == "tensor(uint8)")
        return Artefact(description, onnx_runner(session))
    if path.suffix == ".xml":
        core = _openvino_core(threads)
        model = _opened(path, lambda: core.read_model(path))
        stored = model.get_rt_info(METADATA_KEY).astype(str) if model.has_rt_info(METADATA_KEY) else None
        description = _described(path, stored)
        image = model.inputs[0]
        shape = [side.get_length() if side.is_static else None for side in image.partial_shape]
        _check_input(path, description, shape, image.element_type.get_type_name() == "u8")
        hint = "bf16" if description.precision == "bf16" else "f32"
        return Artefact(description, openvino_runner(model, threads, hint))
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


def _opened(path: Path, read: Callable[[], Any]) -> Any:
    """What a runtime makes of a file; none has a class of errors of its own for damaged ones."""
    try:
        return read()
    except UsageError:
        raise
    except Exception as error:
        raise DataError(
            f"{path} is damaged, or no such file: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        ) from error


def _check_input(path: Path, description: ArtefactDescription, shape: Sequence[object], is_bytes: bool) -> None:
    said = [description.batch, 3, *description.input_size]
    if list(shape) != said or not is_bytes:
        raise DataError(f"{path} takes images {shape}, and says that it takes uint8 {said}: it has been changed")


def _described(path: Path, stored: str | None) -> ArtefactDescription:
    if not stored:
        raise DataError(f"{path} does not say what it is: bench export writes that into the file")
    try:
        return ArtefactDescription.model_validate_json(stored)
    except ValidationError as error:
        raise DataError(f"{path}: what it says of itself cannot be read ({error.error_count()} problems)") from error
