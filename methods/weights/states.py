"""State dicts: read from files, which may be foreign, and loaded into fitted detectors."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from methods.errors import MethodError, WeightsError


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict, .safetensors or what ``torch.save`` wrote, to the CPU; runs no code that a file holds.

    Raises:
        WeightsError: The file is damaged, or holds something else.
    """
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # whatever unpickling a foreign file may raise
        raise WeightsError(f"{path} is not a readable weights file: {type(error).__name__}: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} does not hold a state dict: a mapping from names to tensors")
    return state


def load_fitted(module: nn.Module, state: Mapping[str, Tensor], title: str) -> None:
    """Load the state of a fitted detector, all of it and nothing else.

    Args:
        module: Of a detector with the same options.
        state: Its ``state_dict``.
        title: What an error calls the detector.

    Raises:
        MethodError: Names or shapes differ.
    """
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        reason = str(error).partition("\n")[2].strip() or str(error)
        raise MethodError(f"this is not the state of {title} with these options\n  {reason[:300]}") from error
