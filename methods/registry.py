"""Which detectors exist, by name, without importing them: ``bench --help`` must not load torch."""

import dataclasses
import difflib
import importlib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from methods.errors import MethodError

if TYPE_CHECKING:
    from methods.detector import Detector

ENTRY_POINT_GROUP = "bench.methods"
"""Where an installed package offers detectors of its own: ``my_method = "my_package.module:MyDetector"``."""

BUILT_IN = {
    "efficientad_s": "methods.efficientad.detector:EfficientAdS",
    "efficientad_m": "methods.efficientad.detector:EfficientAdM",
    "patchcore": "methods.patchcore:PatchCore",
    "fastflow": "methods.fastflow:FastFlow",
}


def method_names() -> list[str]:
    """Names of all detectors: the built-in ones in the order of ``BUILT_IN``, then installed packages' by name.

    Raises:
        MethodError: Two packages claim one name.
    """
    return list(_references())


def load_method(name: str) -> "type[Detector]":
    """Import the detector called ``name``.

    Raises:
        MethodError: Unknown name, two packages claim one name, or what an installed package offers cannot be
            imported or is no detector.
    """
    from methods.detector import Detector

    references = _references()
    if name not in references:
        raise _unknown("method", name, references)
    reference = references[name]
    module, _, attribute = reference.partition(":")
    try:
        method = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if name in BUILT_IN:
            raise
        raise MethodError(
            f"method {name!r} cannot be loaded from {reference}: {error}\n"
            f"  Repair or uninstall the package whose entry point group {ENTRY_POINT_GROUP!r} offers it."
        ) from error
    if not (isinstance(method, type) and issubclass(method, Detector)):
        raise MethodError(f"method {name!r}: {reference} is not a subclass of methods.detector.Detector")
    return method


def make_config(method: "type[Detector]", preset: str | None, overrides: Mapping[str, object]) -> Any:
    """Build a detector's options: its defaults, then a preset, then single values.

    Args:
        method: The detector, whose ``Config`` and ``presets`` apply.
        preset: A key of ``method.presets``; the paper's configuration when ``None``.
        overrides: Field name to value. A string is converted to the field's type (``true``, ``0.01``, ``[4,8]``).

    Returns:
        A ``method.Config``.

    Raises:
        MethodError: Unknown preset or field, or a value that the field does not take.
    """
    if preset is not None and preset not in method.presets:
        raise _unknown(f"preset of {method.title}", preset, method.presets)
    # Fields with init=False are derived from the others.
    fields = {field.name for field in dataclasses.fields(method.Config) if field.init}
    types = {name: hint for name, hint in get_type_hints(method.Config, include_extras=True).items() if name in fields}
    values = {**(method.presets[preset] if preset else {}), **overrides}
    for name in values:
        if name not in types:
            raise _unknown(f"option of {method.title}", name, types)
    return method.Config(**{name: _convert(method, name, types[name], value) for name, value in values.items()})


def changed_options(config: Any, *ignored: str) -> list[str]:
    """Name and value of each option that is not at its default, apart from those in ``ignored``; paths by file name."""
    default = type(config)()
    found = []
    for name in (field.name for field in dataclasses.fields(config) if field.name not in ignored):
        value = getattr(config, name)
        if value != getattr(default, name):
            found.append(f"{name.replace('_', ' ')} {Path(value).name if isinstance(value, str) else value}")
    return found


def _convert(method: "type[Detector]", name: str, hint: Any, value: object) -> object:
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(hint)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
    try:
        if isinstance(value, str):
            return adapter.validate_json(value)  # lists, null and numbers among the values of a Literal
    except ValidationError:
        pass
    raise MethodError(f"{method.title} does not take {name}={value!r}: {reason}")


def _references() -> dict[str, str]:
    # A package that is found twice on the path, as editable installs are, offers the same thing twice.
    offered = {(point.name, point.value): point for point in entry_points(group=ENTRY_POINT_GROUP)}
    references = dict(BUILT_IN)
    for name, value in sorted(offered):
        if name in references:
            raise MethodError(
                f"method {name!r} exists twice: {references[name]} and {value} of {_package(offered[name, value])}\n"
                "  Uninstall one of the packages, or rename the method in its entry point."
            )
        references[name] = value
    return references


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name}" if point.dist else "an installed package"


def _unknown(kind: str, name: str, allowed: Iterable[str]) -> MethodError:
    allowed = list(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return MethodError(f"unknown {kind} {name!r}{hint}\n  Allowed: {', '.join(allowed) or 'none'}")
