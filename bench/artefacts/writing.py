"""Write the module of a fitted detector in the format of another runtime. The runtimes are imported when needed."""

import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench.artefacts.description import INPUT, METADATA_KEY, OUTPUTS, Format
from bench.artefacts.running import Run, onnx_runner, onnx_session, openvino_runner
from bench.errors import UsageError
from results.atomic import write_atomically
from results.record import ArtefactPrecision

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch_export": ".pt2"}
PRECISIONS: dict[Format, tuple[ArtefactPrecision, ...]] = {
    "onnx": ("fp32", "fp16"),
    "openvino": ("fp32", "bf16", "int8"),
    "torch_export": ("fp32", "bf16", "fp16"),
}
"""What the runtime of each format computes in on a CPU; ONNX Runtime has no convolutions in bfloat16."""
OPSET = 18
"""Version of ONNX's operators: the oldest that PyTorch's exporter writes."""

_NEEDS: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "torch_export": (),
}
_LARGEST_ONNX = 2**31 - 2**24
"""Bytes of weights and buffers: a file of Protocol Buffers has less than 2 GiB, and the graph takes some of it."""
_QUANTISED = ("Convolution", "GroupConvolution", "Relu", "Clamp", "MaxPool", "AvgPool")
"""Operators of OpenVINO that 8 bits are enough for: distances, differences and means of close values stay floats."""


class Program(Protocol):
    """A detector that has been translated for another runtime."""

    def runner(self, threads: int) -> Run:
        """Run it with so many CPU threads.

        Raises:
            UsageError: What runs it is not installed.
        """

    def write(self, path: Path, text: str) -> list[Path]:
        """Write what the runner runs, with its description.

        Returns:
            The files.

        Raises:
            ResultError: One cannot be written.
        """


def check_format(kind: Format, precision: ArtefactPrecision) -> None:
    """Refuse what cannot be written here.

    Raises:
        UsageError: The format's packages are missing, or its runtime does not compute in the precision.
    """
    if precision not in PRECISIONS[kind]:
        raise UsageError(
            f"the format {kind} is not written in {precision}\n  Allowed with it: {', '.join(PRECISIONS[kind])}"
        )
    missing = [name for name in (*_NEEDS[kind], *(["nncf"] if precision == "int8" else [])) if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the format {kind} in {precision} needs {' and '.join(missing)}, which is not installed\n"
            f"  Install anomaly-bench[{'openvino' if kind == 'openvino' else 'export'}]."
        )


def translate(kind: Format, module: nn.Module, images: Tensor, precision: ArtefactPrecision = "fp32") -> Program:
    """Translate a module for another runtime; for 8 bits, :func:`quantise` is another step.

    Args:
        kind: The format.
        module: In evaluation mode, on the CPU; its networks in the precision, unless :func:`casts_itself`.
        images: Of the shape and type that it shall take.
        precision: In which the runtime is to compute.

    Raises:
        UsageError: As :func:`check_format`; the module is too large for the format.
    """
    check_format(kind, precision)
    if kind == "onnx":
        return OnnxProgram(_onnx_program(module, images))
    if kind == "openvino":
        return OpenVinoProgram(openvino_model(module, images), hint_of(precision))
    return TorchProgram(torch.export.export(module, (images,)))


def casts_itself(kind: Format) -> bool:
    """Whether a format's runtime is given the float32 module and computes in another precision by itself."""
    return kind == "openvino"


def hint_of(precision: ArtefactPrecision) -> str:
    """OpenVINO's ``INFERENCE_PRECISION_HINT``; what is not quantised in a model of 8 bits is float32."""
    return "bf16" if precision == "bf16" else "f32"


@dataclass(frozen=True, eq=False)
class OnnxProgram:
    """What PyTorch's exporter has made."""

    program: Any

    def runner(self, threads: int) -> Run:
        """By ONNX Runtime."""
        return onnx_runner(onnx_session(self.content(), threads))

    def write(self, path: Path, text: str) -> list[Path]:
        """One file, with the description among its metadata."""
        self.program.model.metadata_props[METADATA_KEY] = text
        content = self.content()
        write_atomically(path, lambda file: file.write(content))
        return [path]

    def content(self) -> bytes:
        """The file."""
        return bytes(self.program.model_proto.SerializeToString())


@dataclass(frozen=True, eq=False)
class OpenVinoProgram:
    """A model of OpenVINO, and what it may compute in."""

    model: Any
    hint: str

    def runner(self, threads: int) -> Run:
        """By OpenVINO."""
        return openvino_runner(self.model, threads, self.hint)

    def write(self, path: Path, text: str) -> list[Path]:
        """A file with the graph and the description, and one with the weights."""
        import openvino

        self.model.set_rt_info(text, METADATA_KEY)
        weights = path.with_suffix(".bin")
        with tempfile.TemporaryDirectory() as folder:
            saved = Path(folder) / path.name
            openvino.save_model(self.model, saved, compress_to_fp16=False)
            # The description lies in the file that is written last.
            for source, target in ((saved.with_suffix(".bin"), weights), (saved, path)):
                content = source.read_bytes()
                write_atomically(target, lambda file, content=content: file.write(content))  # type: ignore[misc]
        return [path, weights]


@dataclass(frozen=True, eq=False)
class TorchProgram:
    """What ``torch.export`` has made."""

    program: Any

    def runner(self, threads: int) -> Run:
        """By PyTorch, with the threads that it has."""
        module = self.program.module()

        def run(images: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                maps, scores = module(images)
            return maps, scores

        return run

    def write(self, path: Path, text: str) -> list[Path]:
        """One file, with the description in a file of its own within."""
        buffer = io.BytesIO()
        with _quiet():
            torch.export.save(self.program, buffer, extra_files={f"{METADATA_KEY}.json": text})
        write_atomically(path, lambda file: file.write(buffer.getbuffer()))
        return [path]


def onnx_bytes(module: nn.Module, images: Tensor) -> bytes:
    """The module as ONNX, for images of this shape and type.

    Raises:
        UsageError: The packages that write ONNX are missing, or the module is too large.
    """
    check_format("onnx", "fp32")
    return OnnxProgram(_onnx_program(module, images)).content()


def _onnx_program(module: nn.Module, images: Tensor) -> Any:
    size = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    if size > _LARGEST_ONNX:
        raise UsageError(
            f"this detector holds {size / 2**30:.1f} GiB, and an ONNX file less than 2 GiB\n  Pass --format openvino."
        )
    with _quiet():
        program: Any = torch.onnx.export(
            module, (images,), opset_version=OPSET, dynamo=True, input_names=[INPUT], output_names=list(OUTPUTS),
            verbose=False, custom_translation_table={torch.ops.aten._cdist_forward.default: _distances},
        )  # fmt: skip
    assert program is not None
    return program


def _distances(first: Any, second: Any, p: float = 2.0, compute_mode: int | None = None) -> Any:
    """Euclidean distances of all rows (N, D) to all rows (M, D) in ONNX: PyTorch's exporter has none."""
    from onnxscript import opset18 as operators

    if p != 2:
        raise ValueError(f"distances of the order {p} are not translated")
    differences = operators.Sub(operators.Unsqueeze(first, [-2]), operators.Unsqueeze(second, [-3]))
    return operators.Sqrt(operators.ReduceSumSquare(differences, [-1], keepdims=0))


def openvino_model(module: nn.Module, images: Tensor) -> Any:
    """The module as a model of OpenVINO, for images of this shape and type.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    check_format("openvino", "fp32")
    with _quiet():
        import openvino

        model = openvino.convert_model(torch.export.export(module, (images,)))
    for port, name in zip([*model.inputs, *model.outputs], [INPUT, *OUTPUTS], strict=True):
        port.get_tensor().set_names({name})
    model.reshape(list(images.shape))  # a model of any shape, as the converter makes it, is slower
    return model


def quantise(program: Program, images: Tensor) -> Program:
    """Let the convolutions of a program for OpenVINO compute in 8 bits (post-training quantisation by NNCF).

    Args:
        program: In float32.
        images: Normal training images, uint8 (N, 3, H, W), by which ranges of values are chosen; N is a multiple of the
            program's batch.
    """
    assert isinstance(program, OpenVinoProgram)
    with _quiet(), redirect_stdout(io.StringIO()):
        import nncf

        nncf.set_log_level(logging.ERROR)
        batch = program.model.inputs[0].shape[0]
        kept = [node for node in program.model.get_ordered_ops() if node.get_type_name() not in _QUANTISED]
        model = nncf.quantize(
            program.model,
            nncf.Dataset([part.numpy() for part in images.split(batch)]),
            subset_size=len(images) // batch,
            ignored_scope=nncf.IgnoredScope(names=[node.get_friendly_name() for node in kept], validate=False),
        )
    return OpenVinoProgram(model, program.hint)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters from telling how far they are and what they will do otherwise one day, here and to their makers.

    OpenVINO's converter and NNCF report their use over the network, unless they take themselves to run in a test.
    """
    level, switches = logging.root.manager.disable, {"CI": "true", "NNCF_CI": "1"}
    before = {name: os.environ.get(name) for name in switches}
    logging.disable(logging.WARNING)
    os.environ |= switches
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}
