"""Teachers that describe patches: where they come from. S-T and GCAD take the same."""

from pathlib import Path

from methods.common.patch_networks import PatchNetwork, PatchSize
from methods.common.photograph_training import provenance
from methods.errors import WeightsError
from methods.weights.catalogue import OTHER_WEIGHTS, embedded_file
from methods.weights.files import WeightIdentity
from methods.weights.sources import identify, locate
from methods.weights.states import read_state

EMBEDDED_SIZE: PatchSize = 33


def patch_teacher_files(patch_size: PatchSize, teacher: str) -> list[str]:
    """Names in :mod:`methods.weights.catalogue` of what :func:`load_patch_teacher` reads; none for random and paths."""
    return [_name(patch_size)] if teacher == "embedded" else []


def patch_teacher_identity(patch_size: PatchSize, teacher: str, weights_dir: Path) -> WeightIdentity:
    """Identify the weights that :func:`load_patch_teacher` with the same arguments loads.

    Args:
        patch_size: Side of the patches in pixels.
        teacher: ``embedded``, ``random``, or the path of a state dict; ``auto`` is refused, for none is published.
        weights_dir: Where downloads are kept.

    Raises:
        WeightsError: The file is missing, or there is none.
    """
    return identify(_name(patch_size), teacher, _file(patch_size, teacher, weights_dir), provenance)


def load_patch_teacher(network: PatchNetwork, patch_size: PatchSize, teacher: str, weights_dir: Path) -> None:
    """Load a teacher's weights and freeze it; random ones stay as they are.

    Args:
        network: Of that patch size, and any stride.
        patch_size: As in :func:`patch_teacher_identity`, like the other arguments.
        teacher: See there.
        weights_dir: See there.

    Raises:
        WeightsError: The file is missing, unreadable, or holds another network.
    """
    network.eval().requires_grad_(False)
    path = _file(patch_size, teacher, weights_dir)
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


def _name(patch_size: PatchSize) -> str:
    return f"patch_teacher_{patch_size}"


def _file(patch_size: PatchSize, teacher: str, weights_dir: Path) -> Path | None:
    def published() -> Path:
        raise _unavailable(patch_size, "no teacher of S-T and GCAD has been published")

    def embedded() -> Path:
        if _name(patch_size) not in OTHER_WEIGHTS:
            raise _unavailable(patch_size, f"no teacher is embedded but that of {EMBEDDED_SIZE}x{EMBEDDED_SIZE} pixels")
        return embedded_file(_name(patch_size), weights_dir)

    return locate(teacher, auto=published, embedded=embedded)


def _unavailable(patch_size: PatchSize, problem: str) -> WeightsError:
    return WeightsError(
        f"{problem}; asked for was one of {patch_size}x{patch_size} pixels\n"
        f"  Take the embedded one of {EMBEDDED_SIZE}x{EMBEDDED_SIZE} pixels: --preset embedded; or distil one with\n"
        f"  bench distill patch-teacher --patch-size {patch_size} --photographs FOLDER --out FILE.safetensors\n"
        "  and give its path."
    )
