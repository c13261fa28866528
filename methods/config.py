"""A method's options: building them from names and values, and what they say about a row."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, get_type_hints

from methods.errors import MethodError
from methods.training_length import TrainingLength, other_length

IMAGENET = "imagenet (1281167 images"
"""Beginning of the identity of ILSVRC 2012's training set, the papers' pretraining images, in lower case."""
TRAINING_LENGTHS = ("training_steps", "epochs")
"""Options that a row says in words of its own: with the training scale, and beside the paper's."""
PENALTY = "pretraining_penalty"
"""Option without which a method reads no photographs."""


class Method(Protocol):
    """What options have to do with of a detector's class; see :class:`methods.detector.Detector`."""

    title: str
    Config: type[Any]
    presets: Mapping[str, Mapping[str, object]]
    uses_photographs: bool
    without_effect: frozenset[str]

    def training_length(self, config: Any) -> TrainingLength | None:
        """Optimiser steps, or epochs, at training scale 1."""


PAPER = "paper"
"""What every method calls its defaults, as if they were a preset."""


def choose_preset(method: Method, names: Sequence[str]) -> str | None:
    """The first of the named presets that a method has.

    Args:
        method: The detector.
        names: Presets of any methods, or ``paper``.

    Returns:
        A key of ``method.presets``; ``None`` for the paper's configuration.

    Raises:
        MethodError: The method has none of them.
    """
    for name in names:
        if name in method.presets:
            return name
        if name == PAPER:
            return None
    raise unknown(f"preset of {method.title}", ",".join(names), (PAPER, *method.presets))


def make_config(method: Method, preset: str | None, overrides: Mapping[str, object]) -> Any:
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
        raise unknown(f"preset of {method.title}", preset, method.presets)
    # Fields with init=False are derived from the others.
    fields = {field.name for field in dataclasses.fields(method.Config) if field.init}
    types = {name: hint for name, hint in get_type_hints(method.Config, include_extras=True).items() if name in fields}
    values = {**(method.presets[preset] if preset else {}), **overrides}
    for name in values:
        if name not in types:
            raise unknown(f"option of {method.title}", name, types)
    return method.Config(**{name: _convert(method, name, types[name], value) for name, value in values.items()})


def deviations(method: Method, config: Any, train_scale: float, photographs: str | None) -> list[str]:
    """What distinguishes a row from the paper's configuration, one short phrase each.

    Every option that is not at its default, with paths by file name; the training length, if scale or option make it
    another; and the photographs of a method that uses them, unless they are ImageNet.

    Args:
        method: The detector.
        config: Its options.
        train_scale: Factor on the training length.
        photographs: Identity of the photographs; ``None`` without any.
    """
    default = type(config)()
    phrases = []
    for name in (field.name for field in dataclasses.fields(config)):
        value = getattr(config, name)
        if value == getattr(default, name) or name in TRAINING_LENGTHS or name in method.without_effect:
            continue
        phrases.append(name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {_shown(value)}")
    paper, own = method.training_length(default), method.training_length(config)
    length = other_length(own, paper, train_scale) if own is not None and paper is not None else None
    if length is not None:
        phrases.append(length)
    reads_photographs = method.uses_photographs and getattr(config, PENALTY, True)
    if reads_photographs and photographs is None:
        phrases.append("no pretraining images")
    elif reads_photographs and photographs is not None and not photographs.lower().startswith(IMAGENET):
        phrases.append(f"pretraining images {photographs}")
    return phrases


def _shown(value: object) -> object:
    """What a row says of an option's value: of paths the file names, of several texts one after another."""
    if isinstance(value, str):
        return Path(value).name
    if isinstance(value, tuple) and value and all(isinstance(part, str) for part in value):
        return ", ".join(Path(part).name for part in value)
    return value


def split_outside_brackets(text: str) -> list[str]:
    """Split at commas that are in no brackets; empty parts are left out."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def unknown(kind: str, name: str, allowed: Iterable[str]) -> MethodError:
    """Build the error for a name that does not exist, with the closest one that does."""
    allowed = list(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return MethodError(f"unknown {kind} {name!r}{hint}\n  Allowed: {', '.join(allowed) or 'none'}")


def _convert(method: Method, name: str, hint: Any, value: object) -> object:
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
