"""What is looked at beside the clock: maps of fixed images, memory, where tensors lie, what was compiled."""

import hashlib
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.artefacts.running import Run
from bench.timing.gpu import GpuWatch, watch_gpu
from bench.timing.inspection import reference_images
from bench.timing.passes import Passes
from results.timing_record import Memory

MEMORY_PASSES = 100
"""Passes whose peaks are averaged; they differ by less than 1 MB."""
_READINGS = 100


@contextmanager
def watch_device(device: torch.device) -> Iterator[GpuWatch]:
    """Watch a GPU; on a CPU there is nothing to see."""
    if device.type == "cuda":
        with watch_gpu(device) as watch:
            yield watch
    else:
        yield GpuWatch()


def maps_of_references(run: Run, batch: Tensor, device: torch.device) -> NDArray[np.float32]:
    """The maps of the fixed images by this artefact, (N, h, w).

    Args:
        run: The detector.
        batch: Of the shape and type that it takes; a compiled one takes no other.
        device: Where it runs.
    """
    images = torch.cat(reference_images((batch.shape[2], batch.shape[3]), batch.dtype))
    maps = []
    for part in images.split(len(batch)):
        filled = torch.cat([part, batch[len(part) :]]).to(device)
        maps.append(run(filled)[0][: len(part)].float().cpu().numpy())
    return np.concatenate(maps)


def digest(maps: NDArray[np.float32]) -> str:
    """SHA-256 of maps, each value rounded to four digits of the largest."""
    scale = float(np.abs(maps).max()) or 1.0
    return hashlib.sha256(np.round(maps / scale, 4).astype("<f4").tobytes()).hexdigest()


def peak_memory(passes: Passes, device: torch.device) -> Memory:
    """Peak memory of a pass on the device, mean over passes, and of this process so far."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    process = kilobytes if psutil.MACOS else 1024 * kilobytes
    if device.type != "cuda":
        return Memory(reserved_bytes=None, process_bytes=process)
    torch.cuda.empty_cache()
    peaks = []
    for _ in range(MEMORY_PASSES):
        torch.cuda.reset_peak_memory_stats(device)
        passes()
        torch.cuda.synchronize(device)
        peaks.append(torch.cuda.memory_stats(device)["reserved_bytes.all.peak"])
    return Memory(reserved_bytes=round(sum(peaks) / len(peaks)), process_bytes=process)


def tensors_on_cpu(module: nn.Module) -> list[str]:
    """Names of the parameters and buffers that lie on the CPU."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in named if tensor.device.type == "cpu"]


def network_types(module: nn.Module) -> frozenset[str]:
    """Types of the floating-point parameters of the networks that half precision casts, such as ``float16``."""
    names = getattr(module, "networks", None)
    parts = [module.get_submodule(name) for name in names] if names else [module]
    parameters = [parameter for part in parts for parameter in part.parameters()]
    return frozenset(str(one.dtype).removeprefix("torch.") for one in parameters if one.is_floating_point())


def compilations() -> int:
    """How many graphs ``torch.compile`` has compiled in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return int(dynamo.counters["stats"]["unique_graphs"]) if dynamo is not None else 0


def clock_step_ns() -> float:
    """The smallest step of the host's clock that can be seen, in nanoseconds."""
    steps = []
    for _ in range(_READINGS):
        start = end = time.perf_counter_ns()
        while end == start:
            end = time.perf_counter_ns()
        steps.append(end - start)
    return float(min(steps))
