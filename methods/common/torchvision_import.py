"""Import torchvision even where its compiled operators cannot be loaded."""

import importlib
import re
import sys
from types import ModuleType

_placeholders: list[object] = []  # torch unregisters an operator when its library object dies


def import_torchvision() -> ModuleType:
    """Import torchvision, declaring the compiled operators that its wheel could not load.

    A CUDA-built torchvision beside a CPU-only torch refuses to import because it describes operators (``nms``)
    that its shared library never registered. Detectors use transforms and classification backbones only, which
    need none of them, so a missing operator is declared without a kernel: calling it raises, importing works.
    timm and anomalib import torchvision themselves, so call this before importing either.

    Returns:
        The ``torchvision`` module.

    Raises:
        RuntimeError: torchvision fails to import for another reason.
    """
    import torch

    while True:
        try:
            return importlib.import_module("torchvision")
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missing[1]}() -> ()")
            _placeholders.append(library)
            for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
                del sys.modules[name]
