"""What a fitted detector costs whatever runs it: parameters, memory bank, floating-point operations.

The profiler slows down what is compiled after it, and counts nothing in a captured graph: it counts the eager module,
in a process that times nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import DataError

_SEARCH = "nearest.py"
_RESIZING = "resampling.py"


@dataclass(frozen=True)
class Costs:
    """Costs of one image at batch size 1.

    Attributes:
        parameters: Values of the networks.
        memory_bank: Values of training images' features that new ones are compared with.
        flops: Two per multiplication with addition, as PyTorch's profiler counts them; neither of searches nor of
            resizing, which counts nothing where it is not done by products.
        flops_3x3: Those of them in convolutions of 3x3.
        search_flops: Of searches in the memory bank.
    """

    parameters: int
    memory_bank: int
    flops: int
    flops_3x3: int
    search_flops: int


def count_costs(module: nn.Module, image: Tensor) -> Costs:
    """Count what the module of a fitted detector holds and does.

    Args:
        module: In evaluation mode, not compiled.
        image: (1, 3, H, W) on its device.

    Raises:
        DataError: The profiler has counted no operation, as happens with operators that it does not know.
    """
    flops = {"": 0, _SEARCH: 0, _RESIZING: 0}
    flops_3x3 = 0
    # no_grad: in inference mode PyTorch has counted nothing in some versions (pytorch#126268).
    with (
        torch.no_grad(),
        torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True, with_stack=True, record_shapes=True
        ) as profile,
    ):
        module(image)
    for event in profile.events():
        if event.flops:
            doing = _doing(event)
            flops[doing] += event.flops
            flops_3x3 += event.flops if not doing and _is_3x3(event) else 0
    if not flops[""]:
        raise DataError(f"the profiler has counted no floating-point operation of {type(module).__name__}")
    return Costs(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        memory_bank=memory_bank_values(module),
        flops=flops[""],
        flops_3x3=flops_3x3,
        search_flops=flops[_SEARCH],
    )


def memory_bank_values(module: nn.Module) -> int:
    """Values in the buffers that a module, or one within it, names as its memory bank (attribute ``memory_bank``)."""
    return sum(part.get_buffer(name).numel() for part in module.modules() for name in getattr(part, "memory_bank", ()))


def _is_3x3(event: Any) -> bool:
    """Whether an operator is a convolution of 3x3, by the shape of its second argument, the weights."""
    return event.name == "aten::conv2d" and list(event.input_shapes[1][2:]) == [3, 3]


def _doing(event: Any) -> str:
    """Which file of shared parts an operator was called from that is counted apart; empty if from none."""
    while event is not None:
        for file in (_SEARCH, _RESIZING):
            if f"methods/common/{file}(" in event.name:
                return file
        event = event.cpu_parent
    return ""
