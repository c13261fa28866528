"""Teachers that describe patches: where they come from. S-T and GCAD take the same."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open

from methods.common.patch_networks import PatchNetwork, PatchSize
from methods.errors import WeightsError
from methods.weights.files import WeightIdentity
from methods.weights.sources import identify, locate
from methods.weights.states import read_state

EMBEDDED_SIZE: PatchSize = 33
_EMBEDDED = Path(__file__).parents[1] / "weights" / "embedded"


def patch_teacher_identity(patch_size: PatchSize, teacher: str) -> WeightIdentity:
    """Identify the weights that :func:`load_patch_teacher` with the same arguments loads.

    Args:
        patch_size: Side of the patches in pixels.
        teacher: ``embedded``, ``random``, or the path of a state dict; ``auto`` is refused, for none is published.

    Raises:
        WeightsError: The file is missing, or there is none.
    """
    return identify(f"patch_teacher_{patch_size}", teacher, _file(patch_size, teacher), _provenance)


def load_patch_teacher(network: PatchNetwork, patch_size: PatchSize, teacher: str) -> None:
    """Load a teacher's weights and freeze it; random ones stay as they are.

    Args:
        network: Of that patch size, and any stride.
        patch_size: As in :func:`patch_teacher_identity`, like the other argument.
        teacher: See there.

    Raises:
        WeightsError: The file is missing, unreadable, or holds another network.
    """
    network.eval().requires_grad_(False)
    path = _file(patch_size, teacher)
    if path is None:
        return
    state = read_state(path)
    expected = network.state_dict()
    if {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in expected.items()}:
        raise WeightsError(
            f"{path} does not hold a teacher of {patch_size}x{patch_size} pixels: its tensors are "
            f"{', '.join(f'{key} {tuple(value.shape)}' for key, value in state.items())}"
        )
    network.load_state_dict(state)


def _file(patch_size: PatchSize, teacher: str) -> Path | None:
    missing: Callable[[str], Path] = partial(_refuse, patch_size)
    embedded = _EMBEDDED / f"patch_teacher_{patch_size}.safetensors"
    return locate(
        teacher,
        auto=lambda: missing("no teacher of S-T and GCAD has been published"),
        embedded=lambda: embedded if embedded.is_file() else missing(f"no teacher is embedded at {embedded}"),
    )


def _refuse(patch_size: PatchSize, problem: str) -> Path:
    raise WeightsError(
        f"{problem}, of {patch_size}x{patch_size} pixels neither\n"
        f"  Take the embedded one of {EMBEDDED_SIZE}x{EMBEDDED_SIZE} pixels: --preset embedded; or distil one with\n"
        f"  bench distill patch-teacher --patch-size {patch_size} --photographs FOLDER --out FILE.safetensors\n"
        "  and give its path."
    )


def _provenance(path: Path) -> str:
    """What a teacher's file says of its own making, as ``bench distill`` writes it; else its name."""
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})["settings"])
        return f"distilled from {settings['backbone']}, {settings['steps']} steps, {settings['photographs']}"
    except (SafetensorError, KeyError):
        return path.name
