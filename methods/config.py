"""A method's options: building them from names and values, and what they say about a row."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, get_type_hints

from methods.errors import MethodError

IMAGENET = "imagenet (1281167 images"
"""Beginning of the identity of ILSVRC 2012's training set, the papers' pretraining images, in lower case."""


class Method(Protocol):
    """What options have to do with of a detector's class; see :class:`methods.detector.Detector`."""

    title: str
    Config: type[Any]
    presets: Mapping[str, Mapping[str, object]]
    uses_photographs: bool
    without_effect: frozenset[str]

    def training_length(self, config: Any, images: int) -> int | None:
        """Optimiser steps at training scale 1 on so many images."""


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


def deviations(
    method: Method, config: Any, train_scale: float, scaled: Callable[[int], int], photographs: str | None
) -> list[str]:
    """What distinguishes a row from the paper's configuration, one short phrase each.

    Every option that is not at its default, with paths by file name; the training length, if scale or option make it
    another; and the photographs of a method that uses them, unless they are ImageNet.

    Args:
        method: The detector.
        config: Its options.
        train_scale: Multiplies the training length.
        scaled: Makes of a training length that of this row.
        photographs: Identity of the photographs; ``None`` without any.
    """
    default = type(config)()
    phrases = []
    for name in (field.name for field in dataclasses.fields(config)):
        value = getattr(config, name)
        if value == getattr(default, name) or name == "training_steps" or name in method.without_effect:
            continue
        shown = Path(value).name if isinstance(value, str) else value
        phrases.append(name.replace("_", " ") if value is True else f"{name.replace('_', ' ')} {shown}")
    phrases += _training(method, default, config, train_scale, scaled)
    if method.uses_photographs and photographs is None:
        phrases.append("no pretraining images")
    elif method.uses_photographs and photographs is not None and not photographs.lower().startswith(IMAGENET):
        phrases.append(f"pretraining images {photographs}")
    return phrases


def _training(
    method: Method, default: Any, config: Any, train_scale: float, scaled: Callable[[int], int]
) -> Iterator[str]:
    """Say that a training length is not the paper's; one row stands for scenarios with few images and with many."""
    (paper, many), (own, _) = ([method.training_length(o, count) for count in (1, 10**6)] for o in (default, config))
    if paper is None or own is None:
        return
    if paper != many:  # in passes over the images: what options change, they say themselves
        if train_scale != 1:
            yield f"{train_scale:g} of the training length"
    elif scaled(own) != paper:
        yield f"{scaled(own)} of {paper} training steps"


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
