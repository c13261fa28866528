"""Write the module of a fitted detector in the format of another runtime. The runtimes are imported when needed."""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.artefacts.description import INPUT, METADATA_KEY, OUTPUTS, ArtefactDescription, Format
from bench.errors import UsageError
from results.atomic import write_atomically

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch_export": ".pt2"}
_NEEDS: dict[Format, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript"), "openvino": ("openvino",), "torch_export": ()}
OPSET = 18
"""Version of ONNX's operators: the oldest that PyTorch's exporter writes."""


def check_packages(kind: Format) -> None:
    """Refuse a format whose packages are missing.

    Raises:
        UsageError: Says what to install.
    """
    missing = [name for name in _NEEDS[kind] if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the format {kind} needs {' and '.join(missing)}, which is not installed\n"
            f"  Install anomaly-bench[{'openvino' if kind == 'openvino' else 'export'}]."
        )


def onnx_bytes(module: nn.Module, images: Tensor, metadata: str = "") -> bytes:
    """The module as ONNX, for images of this shape and type.

    Args:
        module: In evaluation mode, on the CPU.
        images: (B, 3, H, W).
        metadata: The description, as JSON.

    Raises:
        UsageError: The packages that write ONNX are missing.
    """
    check_packages("onnx")
    with _quiet():
        program: Any = torch.onnx.export(
            module, (images,), opset_version=OPSET, dynamo=True, input_names=[INPUT], output_names=list(OUTPUTS),
            verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[METADATA_KEY] = metadata
    return bytes(program.model_proto.SerializeToString())


def write_artefact(path: Path, module: nn.Module, images: Tensor, description: ArtefactDescription) -> list[Path]:
    """Write a detector as a file of the description's format.

    Args:
        path: The file; OpenVINO's weights lie beside it, as ``.bin``.
        module: In evaluation mode, on the CPU.
        images: Of the shape and type that the artefact shall take.
        description: What it is.

    Returns:
        The files written.

    Raises:
        UsageError: The packages for the format are missing.
        ResultError: A file cannot be written.
    """
    check_packages(description.format)
    text = description.model_dump_json()
    if description.format == "onnx":
        content = onnx_bytes(module, images, text)
    elif description.format == "openvino":
        return _write_openvino(path, module, images, text)
    else:
        buffer = io.BytesIO()
        program = torch.export.export(module, (images,))
        with _quiet():
            torch.export.save(program, buffer, extra_files={f"{METADATA_KEY}.json": text})
        content = buffer.getvalue()
    write_atomically(path, lambda file: file.write(content))
    return [path]


def openvino_model(module: nn.Module, images: Tensor) -> Any:
    """The module as a model of OpenVINO, for images of this shape and type."""
    check_packages("openvino")
    import openvino

    with _quiet():
        model = openvino.convert_model(torch.export.export(module, (images,)))
    for port, name in zip([*model.inputs, *model.outputs], [INPUT, *OUTPUTS], strict=True):
        port.get_tensor().set_names({name})
    return model


def _write_openvino(path: Path, module: nn.Module, images: Tensor, text: str) -> list[Path]:
    import openvino

    model = openvino_model(module, images)
    model.set_rt_info(text, METADATA_KEY)
    weights = path.with_suffix(".bin")
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / path.name
        openvino.save_model(model, saved, compress_to_fp16=False)
        # The description lies in the file that is written last.
        for source, target in ((saved.with_suffix(".bin"), weights), (saved, path)):
            content = source.read_bytes()
            write_atomically(target, lambda file, content=content: file.write(content))  # type: ignore[misc]
    return [path, weights]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep exporters from telling how far they are and what they will do otherwise one day."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
