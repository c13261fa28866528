"""What runs the module of a fitted detector."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.timing.passes import Run
from results.timing_record import Backend

_WARM_UP_PASSES = 3


def make_runner(backend: Backend, module: nn.Module, images: Tensor) -> Run:
    """Prepare a module to be run by a backend; takes as long as compiling does.

    Args:
        backend: Its name.
        module: In evaluation mode, on its device, in its precision.
        images: A batch of the shape and type that will be passed, on the device.

    Raises:
        UsageError: The backend does not exist here.
    """
    makers: dict[Backend, Callable[[nn.Module, Tensor], Run]] = {
        "eager": lambda module, _: module,
        "compile": _compiled,
        "cudagraph": _captured,
    }
    if backend not in makers:
        raise UsageError(f"the backend {backend!r} is not supported here\n  Allowed: {', '.join(makers)}")
    return makers[backend](module, images)


def _compiled(module: nn.Module, images: Tensor) -> Run:
    run: Run = torch.compile(module)
    run(images)
    return run


def _captured(module: nn.Module, images: Tensor) -> Run:
    """Capture one pass as a CUDA graph; images are copied into its input, which is part of a pass."""
    if images.device.type != "cuda":
        raise UsageError("the backend 'cudagraph' needs a GPU")
    held = images.clone()
    stream = torch.cuda.Stream(images.device)
    stream.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(stream):  # libraries choose their kernels and reserve memory before the capture
        for _ in range(_WARM_UP_PASSES):
            module(held)
    torch.cuda.current_stream(images.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = module(held)

    def run(batch: Tensor) -> tuple[Tensor, Tensor]:
        held.copy_(batch, non_blocking=True)
        graph.replay()
        maps, scores = outputs
        return maps, scores

    return run
