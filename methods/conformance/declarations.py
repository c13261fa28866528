"""What a detector says about itself before it has seen an image."""

import dataclasses
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from methods.config import make_config
from methods.conformance.check import BrokenPromiseError, Check, DoesNotApplyError, check
from methods.conformance.subject import Subject
from methods.errors import MethodError, WeightsError
from methods.training_length import optimiser_steps
from methods.weights.files import WeightIdentity

WEIGHT_SOURCES = ("download", "file", "embedded", "random")


@check(
    "declarations",
    "A detector has a title, a source and an input size, and names installed packages and options that exist.",
    "Set title and source in the class, input_size in __init__; see methods/detector.py for the others.",
)
def declarations(subject: Subject) -> None:
    """Look at the class attributes and at ``input_size``."""
    method = subject.method
    for name in ("title", "source"):
        value = getattr(method, name, None)
        if not (isinstance(value, str) and value.strip()):
            raise BrokenPromiseError(f"{name} is {value!r}, and no text.")
    size = method(subject.config).input_size
    if not (isinstance(size, tuple) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise BrokenPromiseError(f"input_size is {size!r}, and no height and width in pixels.")
    for package in method.packages:
        try:
            version(package)
        except PackageNotFoundError:
            raise BrokenPromiseError(
                f"packages names {package!r}, which is not installed.",
                "Name packages as pip does (opencv-python, not cv2), or install it.",
            ) from None
    unknown = method.without_effect - {field.name for field in dataclasses.fields(method.Config)}
    if unknown:
        raise BrokenPromiseError(f"without_effect names {', '.join(sorted(unknown))}, which is no option.")


@check(
    "options",
    "Options are a frozen dataclass, hashable, with defaults that their types allow, and survive JSON.",
    "Write @dataclass(frozen=True), give each field a type and a default, and use tuples, not lists or dicts.",
)
def options(subject: Subject) -> None:
    """Look at ``Config``."""
    kind = subject.method.Config
    if not dataclasses.is_dataclass(kind):
        raise BrokenPromiseError(f"Config is {kind!r}, and no dataclass.")
    if not kind.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise BrokenPromiseError(f"{kind.__name__} is not frozen: its options could change after a result is named.")
    required = [field.name for field in dataclasses.fields(kind) if field.init and not _has_default(field)]
    if required:
        raise BrokenPromiseError(f"{kind.__name__} has no default for {', '.join(required)}.")
    for config in (kind(), subject.config):
        hash(config)
        values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.init}
        restored = make_config(subject.method, None, json.loads(json.dumps(to_jsonable_python(values))))
        if restored != config:
            raise BrokenPromiseError(f"{config} becomes {restored} when it is written to JSON and read again.")


def _has_default(field: "dataclasses.Field[Any]") -> bool:
    return not (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)


@check(
    "row",
    "Whatever is not the paper's shows in the row: presets, options and another training length.",
    "Leave deviations() to the base class, and say in training_length() how long the fit trains.",
)
def row(subject: Subject) -> None:
    """Look at ``deviations``, ``presets`` and ``training_length``."""
    method, context = subject.method, subject.context()
    default = method.Config()
    paper = method.deviations(default, context)
    for preset in method.presets:
        if method.deviations(make_config(method, preset, {}), context) == paper:
            raise BrokenPromiseError(f"The preset {preset!r} is called what the paper's options are called: {paper}.")
    changed = [
        field.name
        for field in dataclasses.fields(default)
        if getattr(subject.config, field.name) != getattr(default, field.name)
        and field.name not in method.without_effect
    ]
    if changed and method.deviations(subject.config, context) == paper:
        raise BrokenPromiseError(f"Another {', another '.join(changed)} does not show: the row still says {paper}.")
    length = method.training_length(default)
    if length is not None:
        half = method.deviations(default, subject.context(train_scale=0.5))
        if optimiser_steps(length, images=1) > 1 and half == paper:
            raise BrokenPromiseError(f"Half of {length} training steps does not show: the row still says {paper}.")


@check(
    "weights",
    "weights() names each file of pretrained weights with its origin and the SHA-256 of its content.",
    "Return a WeightIdentity per file; only random weights have no digest.",
)
def weights(subject: Subject) -> None:
    """Look at the identities of the weights."""
    identities = subject.method.weights(subject.config, subject.weights_dir)
    for identity in identities:
        if not isinstance(identity, WeightIdentity):
            raise BrokenPromiseError(f"weights() returned {identity!r}, and no WeightIdentity.")
        if identity.source not in WEIGHT_SOURCES:
            raise BrokenPromiseError(f"The source of {identity.name} is {identity.source!r}, none of {WEIGHT_SOURCES}.")
        if (identity.sha256 is None) != (identity.source == "random"):
            raise BrokenPromiseError(f"{identity.name} from {identity.source} has the digest {identity.sha256}.")
        if identity.sha256 is not None and len(bytes.fromhex(identity.sha256)) != 32:
            raise BrokenPromiseError(f"The digest of {identity.name} is {identity.sha256}, not 64 hexadecimal digits.")


@check(
    "embedded",
    "The preset embedded, if there is one, needs no download.",
    "Let it choose weights that are embedded in a package, or none; call a preset that needs a download otherwise.",
)
def embedded(subject: Subject) -> None:
    """Look where the weights of the preset come from, with an empty folder of weights."""
    if "embedded" not in subject.method.presets:
        raise DoesNotApplyError("it has no such preset")
    config = make_config(subject.method, "embedded", {})
    for identity in subject.method.weights(config, subject.scratch / "empty"):
        if identity.source == "download":
            raise BrokenPromiseError(f"{identity.name} ({identity.tag}) is downloaded.")


@check(
    "missing-weights",
    "Weights that do not exist are a WeightsError that names the file, before anything is fitted.",
    "Let weights() look whether the file exists, and raise WeightsError with its path and how to get it.",
)
def missing_weights(subject: Subject) -> None:
    """Set each option that takes a path to one that does not exist."""
    usual = subject.method.weights(subject.config, subject.weights_dir)
    if not usual:
        raise DoesNotApplyError("it uses no pretrained weights")
    missing = subject.scratch / "no-such-weights.safetensors"
    named = [field.name for field in dataclasses.fields(subject.config) if _is_missed(subject, field.name, missing)]
    if not named:
        raise DoesNotApplyError("no option names a file of weights")


def _is_missed(subject: Subject, option: str, missing: Path) -> bool:
    """Whether ``weights()`` notices that the file an option names is missing; not if the option names no file."""
    try:
        config = make_config(subject.method, None, {**subject.options, option: str(missing)})
        identities = subject.method.weights(config, subject.weights_dir)
    except WeightsError as error:
        if missing.name not in str(error):
            raise BrokenPromiseError(f"The error for {option}={missing} does not name the file: {error}") from error
        return True
    except MethodError:  # the option takes no path
        return False
    except OSError as error:
        raise BrokenPromiseError(f"{option}={missing} raises {type(error).__name__}, and no WeightsError.") from error
    if identities != subject.method.weights(subject.config, subject.weights_dir):
        raise BrokenPromiseError(f"{option}={missing} is believed: weights() says {identities}.")
    return False


CHECKS: tuple[Check, ...] = (declarations, options, row, weights, embedded, missing_weights)
