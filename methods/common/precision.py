"""Half precision of a fitted detector: its networks are cast, and nothing else.

Differences of nearly equal numbers, means, quantiles and distances stay float32 (the paper of EfficientAD,
Appendix E, times its networks so).
"""

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.errors import MethodError

Precision = Literal["fp32", "bf16", "fp16"]
TrainingPrecision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(module: nn.Module, precision: Precision) -> None:
    """Cast the networks of a fitted detector, which its attribute ``networks`` names.

    Raises:
        MethodError: The module does not say which of its parts are networks.
    """
    if precision == "fp32":
        return
    names: Sequence[str] | None = getattr(module, "networks", None)
    if not names:
        raise MethodError(
            f"this detector cannot run in {precision}: its module does not name its networks (attribute networks)\n"
            "  Use precision fp32."
        )
    for name in names:
        module.get_submodule(name).to(DTYPES[precision])


def run_network(network: nn.Module, inputs: Tensor | Sequence[Tensor]) -> Any:
    """Run a network in its own precision on float32, a tensor or several; so is what it returns."""
    dtype = next(network.parameters()).dtype
    outputs = network(inputs.to(dtype) if isinstance(inputs, Tensor) else [one.to(dtype) for one in inputs])
    return outputs.float() if isinstance(outputs, Tensor) else [output.float() for output in outputs]


def autocast(device: torch.device, precision: TrainingPrecision) -> AbstractContextManager[object]:
    """Run networks in ``precision`` while they are trained."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Let GPUs round the factors of float32 products to TF32, or not, for a while; PyTorch's own defaults differ."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


CPU_INSTRUCTIONS: dict[Precision, frozenset[str]] = {
    "bf16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "fp16": frozenset({"avx512_fp16", "amx_fp16", "asimdhp"}),
}
"""As Linux names them; one is enough. Without any, PyTorch emulates: a training step takes minutes."""


def lacks_instructions(precision: Precision, cpu_features: Collection[str]) -> bool:
    """Whether a CPU with these features can only emulate a precision; not if its features are unknown (empty)."""
    needed = CPU_INSTRUCTIONS.get(precision)
    return needed is not None and bool(cpu_features) and needed.isdisjoint(cpu_features)


@cache
def cpu_features() -> frozenset[str]:
    """Instruction sets of this CPU as Linux names them (``avx512_bf16``); empty where they are not known."""
    try:
        match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return frozenset(match[1].split()) if match else frozenset()


def check_precision(precision: Precision, device: torch.device, *, forced: bool) -> None:
    """Refuse a precision that the CPU only emulates.

    Raises:
        MethodError: The device is a CPU without instructions for it, and it is not forced.
    """
    if device.type == "cpu" and not forced and lacks_instructions(precision, cpu_features()):
        needed = ", ".join(sorted(CPU_INSTRUCTIONS[precision]))
        raise MethodError(
            f"{precision} is not supported by this CPU: it has none of {needed}, and emulating takes minutes per step\n"
            "  Use fp32, or pass --force to emulate all the same."
        )
