"""What runs the module of a fitted detector."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from bench.artefacts.running import Artefact, Run, onnx_runner, onnx_session, openvino_runner
from bench.artefacts.writing import hint_of, onnx_bytes, openvino_model
from bench.errors import UsageError
from results.record import ArtefactPrecision, Precision
from results.timing_record import Backend

PRECISIONS: dict[Backend, tuple[ArtefactPrecision, ...]] = {
    "eager": ("fp32", "bf16", "fp16"),
    "compile": ("fp32", "bf16", "fp16"),
    "cudagraph": ("fp32", "bf16", "fp16"),
    "onnxruntime": ("fp32", "fp16"),
    "openvino": ("fp32", "bf16", "int8"),
    "tensorrt": ("fp32", "fp16"),
}
"""What each backend computes in; ONNX Runtime has no convolutions in bfloat16 on a CPU."""
_WARM_UP_PASSES = 3
_ENGINE = "_run_on_acc"
"""How Torch-TensorRT calls the parts of a module that TensorRT runs."""


@dataclass(frozen=True, eq=False)
class Runner:
    """What runs a detector.

    Attributes:
        run: Takes images of the shape and type that it was made for.
        types: Floating-point types that its networks run in, such as ``bfloat16``; ``None`` where they are those of the
            module's parameters.
    """

    run: Run
    types: frozenset[str] | None = None


def make_runner(backend: Backend, module: nn.Module, images: Tensor, precision: Precision, threads: int) -> Runner:
    """Prepare a module to be run by a backend; takes as long as compiling does.

    Args:
        backend: Its name.
        module: In evaluation mode, on its device; in its precision, unless ``casts_itself``.
        images: A batch of the shape and type that will be passed, on the device.
        precision: Of the networks.
        threads: CPU threads.

    Raises:
        UsageError: The backend does not exist here, or cannot compute in the precision.
    """
    check_backend(backend, (precision,))
    if backend in ("onnxruntime", "openvino") and images.device.type != "cpu":
        raise UsageError(f"the backend {backend!r} runs on a CPU: pass --device cpu")
    makers: dict[Backend, Callable[[], Runner]] = {
        "eager": lambda: Runner(module),
        "compile": lambda: Runner(_compiled(module, images)),
        "cudagraph": lambda: Runner(Captured(module, images)),
        "onnxruntime": lambda: Runner(onnx_runner(onnx_session(onnx_bytes(module, images), threads))),
        "openvino": lambda: _openvino(module, images, precision, threads),
        "tensorrt": lambda: Runner(_tensorrt(module, images)),
    }
    return makers[backend]()


def check_backend(backend: Backend, precisions: Collection[ArtefactPrecision]) -> None:
    """Refuse a backend that computes in none of some precisions.

    Raises:
        UsageError: It does not.
    """
    if not set(precisions) & set(PRECISIONS[backend]):
        raise UsageError(
            f"the backend {backend} does not compute in {' or '.join(precisions)}\n"
            f"  Allowed with it: {', '.join(PRECISIONS[backend])}."
        )


def quantised_runner(artefact: Artefact) -> Runner:
    """Run what was exported in 8 bits, on images as the protocol hands them over: bytes, or bytes divided by 255."""

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images if images.dtype == torch.uint8 else (images * 255).round().to(torch.uint8)
        return artefact.run(pixels)

    return Runner(run, frozenset({"int8"}))


def casts_itself(backend: Backend) -> bool:
    """Whether a backend is given the float32 module and computes in another precision by itself."""
    return backend == "openvino"


def _openvino(module: nn.Module, images: Tensor, precision: Precision, threads: int) -> Runner:
    """OpenVINO decides by itself which operators run in bfloat16; it keeps what needs float32."""
    run = openvino_runner(openvino_model(module, images), threads, hint_of(precision))
    return Runner(run, frozenset({"bfloat16" if precision == "bf16" else "float32"}))


def _tensorrt(module: nn.Module, images: Tensor) -> Run:
    """TensorRT's engines of what it takes of a module; PyTorch goes on running the rest, such as a search."""
    if find_spec("torch_tensorrt") is None:
        raise UsageError("Torch-TensorRT is not installed\n  Install torch-tensorrt of the release of PyTorch here.")
    if images.device.type != "cuda":
        raise UsageError("the backend 'tensorrt' needs a GPU")
    import torch_tensorrt

    # The networks stay in the precision that they were cast to, and float32 is not rounded to TF32.
    compiled = torch_tensorrt.compile(module, ir="dynamo", inputs=[images], use_explicit_typing=True, disable_tf32=True)
    if not any(name.startswith(_ENGINE) for name, _ in compiled.named_children()):
        raise UsageError("TensorRT takes no part of this detector: a row would be PyTorch's\n  Pass --backend compile.")
    run: Run = compiled
    run(images)
    return run


def _compiled(module: nn.Module, images: Tensor) -> Run:
    run: Run = torch.compile(module)
    run(images)
    return run


class Captured:
    """One pass captured as a CUDA graph; images are copied into its input, which is part of a call.

    Args:
        run: The detector.
        images: A batch of the shape and type that will be passed, on the device.

    Raises:
        UsageError: There is no GPU.
    """

    def __init__(self, run: Run, images: Tensor) -> None:
        if images.device.type != "cuda":
            raise UsageError("a CUDA graph needs a GPU")
        self._held = images.clone()
        stream = torch.cuda.Stream(images.device)
        stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(stream):  # libraries choose their kernels and reserve memory before the capture
            for _ in range(_WARM_UP_PASSES):
                run(self._held)
        torch.cuda.current_stream(images.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = run(self._held)

    def load(self, images: Tensor) -> None:
        """Copy images into the input."""
        self._held.copy_(images, non_blocking=True)

    def replay(self) -> tuple[Tensor, Tensor]:
        """Do the pass once more; the tensors returned are the same ones each time."""
        self._graph.replay()
        maps, scores = self._outputs
        return maps, scores

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps and scores of images."""
        self.load(images)
        return self.replay()
