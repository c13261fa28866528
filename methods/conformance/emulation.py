"""Half precision on a CPU that has no instructions for it, as fast as float32."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

HALF = (torch.bfloat16, torch.float16)
PRODUCTS = {
    torch.ops.aten.convolution,
    torch.ops.aten.mm,
    torch.ops.aten.addmm,
    torch.ops.aten.bmm,
    torch.ops.aten.baddbmm,
}
"""Where all the time goes: PyTorch emulates one such product for half a minute."""


class HalfProducts(TorchDispatchMode):
    """Computes products of half precision in float32 and rounds the result, which is what tensor cores do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        """Run one operator."""
        dtype = next((value.dtype for value in args if isinstance(value, Tensor) and value.dtype in HALF), None)
        if dtype is None or func.overloadpacket not in PRODUCTS:
            return func(*args, **(kwargs or {}))
        return func(*tree_map(_widened, args), **(kwargs or {})).to(dtype)


def _widened(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value
