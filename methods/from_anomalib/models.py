"""Which models the installed anomalib has, and how they are named: ``anomalib:Padim[backbone=resnet18]``."""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from methods.common.torchvision_import import import_torchvision
from methods.config import split_outside_brackets
from methods.errors import MethodError

SUPPORTED = "2.7"
"""Release series whose models have been tried."""
_GRAMMAR = re.compile(r"anomalib:(?P<model>\w+)(?:\[(?P<arguments>.*)\])?")


def parse_name(name: str) -> tuple[str, str]:
    """The model and what stands in brackets behind it.

    Raises:
        MethodError: The name makes no sense.
    """
    matched = _GRAMMAR.fullmatch(name)
    if matched is None:
        raise MethodError(
            f"{name!r} names no model of anomalib\n  Allowed: anomalib:MODEL or anomalib:MODEL[OPTION=VALUE,…], such "
            "as anomalib:Padim[backbone=resnet18]."
        )
    return matched["model"], matched["arguments"] or ""


def parse_arguments(text: str) -> dict[str, object]:
    """Read ``backbone=resnet18,layers=[layer1,layer2]``: numbers, true, false, null and lists as in JSON, else text.

    Raises:
        MethodError: A part is not of the form OPTION=VALUE.
    """
    arguments: dict[str, object] = {}
    for part in split_outside_brackets(text):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and option.isidentifier()):
            raise MethodError(f"{part!r} is not of the form OPTION=VALUE, as the brackets of an anomalib model need")
        arguments[option] = _value(value)
    return arguments


def _value(text: str) -> object:
    if text.startswith("[") and text.endswith("]"):
        return [_value(part) for part in split_outside_brackets(text[1:-1])]
    try:
        return json.loads(text)
    except ValueError:
        return text


def absolute(value: object) -> object:
    """A path that exists, in full, as the fit has another current folder; other values as they are."""
    return str(Path(value).resolve()) if isinstance(value, str) and "/" in value and Path(value).exists() else value


@cache
def anomalib_models() -> tuple[str, ...]:
    """Names of all image models of the installed anomalib.

    Raises:
        MethodError: It is not installed, or not of a release series that was tried.
    """
    try:
        installed = version("anomalib")
    except PackageNotFoundError as error:
        raise MethodError(f"anomalib is not installed\n  pip install 'anomalib=={SUPPORTED}.*'") from error
    if installed.rpartition(".")[0] != SUPPORTED:
        raise MethodError(
            f"anomalib {installed} is installed, whose models have not been tried: their parts have other names in "
            f"every series\n  Install {SUPPORTED}: pip install 'anomalib=={SUPPORTED}.*'"
        )
    return tuple(image_models().__all__)


def image_models() -> Any:
    """The module ``anomalib.models.image``, which takes seconds to import the first time."""
    with quiet():
        import_torchvision()
        from anomalib.models import image

        return image


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of anomalib's imports, and what Lightning says of its hardware, from the user."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
