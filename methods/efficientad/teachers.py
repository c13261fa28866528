"""EfficientAD's teachers: the embedded one, the public ones and files of the user's."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from methods.common.photograph_training import provenance
from methods.efficientad.pdn import TEACHER_CHANNELS, Size, patch_description_network
from methods.errors import WeightsError
from methods.weights.archives import extract_member
from methods.weights.catalogue import embedded_file, published_file
from methods.weights.files import WeightIdentity, sha256_of
from methods.weights.states import read_state

PUBLIC_TEACHERS = "efficientad_teachers"
"""The archive of both, as :mod:`methods.weights.catalogue` knows it."""
_MEMBERS: dict[Size, str] = {"S": "pretrained_teacher_small.pth", "M": "pretrained_teacher_medium.pth"}


def teacher_files(size: Size, teacher: str) -> list[str]:
    """Names in :mod:`methods.weights.catalogue` of what :func:`load_teacher` reads; none for random ones and paths."""
    return {"auto": [PUBLIC_TEACHERS], "embedded": [_name(size)]}.get(teacher, [])


def teacher_identity(size: Size, teacher: str, weights_dir: Path) -> WeightIdentity:
    """Identify the weights that ``load_teacher`` with the same arguments loads.

    Args:
        size: ``S`` or ``M``.
        teacher: ``auto`` (download), ``embedded``, ``random``, or the path of a state dict (.pth or .safetensors).
        weights_dir: Where downloads are kept.

    Raises:
        WeightsError: The file is missing, cannot be downloaded, or is not the expected one.
    """
    name = _name(size)
    if teacher == "random":
        return WeightIdentity(name, "random", "random initialisation", None)
    path = _teacher_file(size, teacher, weights_dir)
    if teacher == "auto":
        return WeightIdentity(name, "download", "wide_resnet101_2 on ImageNet, nelson1425", sha256_of(path))
    source = "embedded" if teacher == "embedded" else "file"
    return WeightIdentity(name, source, provenance(path), sha256_of(path))


def load_teacher(network: nn.Sequential, size: Size, teacher: str, weights_dir: Path) -> None:
    """Load teacher weights into a patch description network with 384 output channels; random ones stay as they are.

    Args:
        network: Padded or not: padding has no weights.
        size: As in :func:`teacher_identity`, like the other arguments.
        teacher: See there.
        weights_dir: See there.

    Raises:
        WeightsError: The file is missing, unreadable, or holds another network.
    """
    if teacher == "random":
        return
    path = _teacher_file(size, teacher, weights_dir)
    network.load_state_dict(_convert(read_state(path), size, path))


def _name(size: Size) -> str:
    return f"efficientad_{size.lower()}_teacher"


def _teacher_file(size: Size, teacher: str, weights_dir: Path) -> Path:
    if teacher == "auto":
        return _public_teacher(size, weights_dir)
    if teacher == "embedded":
        return embedded_file(_name(size), weights_dir)
    path = Path(teacher).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"no teacher file at {path}; allowed: auto, embedded, random, or the path of a .pth or .safetensors file"
        )
    return path


def _public_teacher(size: Size, weights_dir: Path) -> Path:
    """Download, extract and convert the public teacher on first use; float32 as published."""
    from filelock import FileLock

    archive = published_file(PUBLIC_TEACHERS, weights_dir, "take the embedded teacher: --preset embedded")
    member = _MEMBERS[size]
    target = weights_dir / Path(member).with_suffix(".safetensors")
    with FileLock(f"{target}.lock"):
        if not target.exists():
            state = _convert(read_state(extract_member(archive, member, weights_dir)), size, archive)
            partial = target.with_suffix(".part")
            save_file(state, partial, metadata={"format": "pt", "archive_sha256": sha256_of(archive)})
            partial.replace(target)
    return target


def _convert(state: dict[str, Tensor], size: Size, path: Path) -> dict[str, Tensor]:
    """Rename layers to those of :func:`patch_description_network`, whatever they are called but in their order.

    Codes number the convolutions themselves (``conv1`` ... ``conv4``) or, as ours does, all layers of a sequence.
    """
    with torch.device("meta"):
        expected = patch_description_network(size, TEACHER_CHANNELS, padding=False).state_dict()

    def position(key: str) -> tuple[int, str]:
        layer, _, kind = key.rpartition(".")
        number = re.search(r"\d+$", layer)
        return int(number[0]) if number else -1, kind

    found = [state[key] for key in sorted(state, key=position)]
    wanted = {key: tuple(expected[key].shape) for key in sorted(expected, key=position)}
    if [tuple(value.shape) for value in found] != list(wanted.values()):
        raise WeightsError(
            f"{path} does not hold a teacher of EfficientAD-{size}: its tensors are "
            f"{', '.join(f'{key} {tuple(value.shape)}' for key, value in state.items())}"
        )
    return {key: value.contiguous() for key, value in zip(wanted, found, strict=True)}
