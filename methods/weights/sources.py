"""One grammar for pretrained weights, of every method and backbone: ``auto``, ``embedded``, ``random``, or a path."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from methods.errors import WeightsError
from methods.weights.files import WeightIdentity, sha256_of

RANDOM_TAG = "random initialisation"


def locate(option: str, *, auto: Callable[[], Path], embedded: Callable[[], Path]) -> Path | None:
    """Find the file that an option names.

    Args:
        option: ``auto``, ``embedded``, ``random``, or the path of a state dict (.pth or .safetensors).
        auto: Fetches the published file.
        embedded: Finds the file inside an installed package.

    Returns:
        The file, ``None`` for random weights.

    Raises:
        WeightsError: There is no such file.
    """
    if option == "random":
        return None
    if option == "auto":
        return auto()
    if option == "embedded":
        return embedded()
    path = Path(option).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"no weights file at {path}\n  Allowed: auto, embedded, random, or the path of a .pth or .safetensors file."
        )
    return path


def identify(name: str, option: str, path: Path | None, tag: Callable[[Path], str]) -> WeightIdentity:
    """Say what a result row says about the file that :func:`locate` found for an option.

    Args:
        name: Of the network.
        option: As given to :func:`locate`.
        path: What that returned.
        tag: Which training of the network a file holds.
    """
    if path is None:
        return WeightIdentity(name, "random", RANDOM_TAG, None)
    source = {"auto": "download", "embedded": "embedded"}.get(option, "file")
    return WeightIdentity(name, source, tag(path), sha256_of(path))


def provenance(path: Path) -> str:
    """What the file of a network says of its own making, as ``bench distill`` writes it; else its name."""
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})["settings"])
    except (SafetensorError, KeyError):
        return path.name
    origin = f"distilled from {settings['backbone']}" if "backbone" in settings else "trained"
    return f"{origin}, {settings['steps']} steps, {settings['photographs']}"
