"""One grammar for pretrained weights, of every method and backbone: ``auto``, ``embedded``, ``random``, or a path."""

from collections.abc import Callable
from pathlib import Path

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


def backbone_files(config: object) -> list[str]:
    """Names in the catalogue of the files that a detector's options take their features from.

    Args:
        config: With ``backbone`` and ``backbone_weights``, or with ``backbones`` and as many ``backbone_weights``; of
            options without them, and of random weights and paths, there are none.
    """
    several = getattr(config, "backbones", None)
    names = [getattr(config, "backbone", "")] if several is None else list(several)
    options = getattr(config, "backbone_weights", "random")
    options = [options] * len(names) if isinstance(options, str) else list(options)
    return [name for name, option in zip(names, options, strict=True) if option in ("auto", "embedded")]
