"""Fitted detectors on disk: ``model.safetensors``, everything that inference needs, with ``model.json`` about it.

Nothing in either file is code: a model that somebody else has made can be read safely.
"""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from bench.errors import DataError
from methods.common.precision import set_precision
from methods.config import make_config
from methods.detector import Detector
from methods.registry import load_method
from results.atomic import write_atomically
from results.errors import ResultError
from results.record import Precision, Scalar

MODEL_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FitFacts(_Strict):
    """What a record says of a fit, whether its cell did it or took a kept model.

    Attributes:
        train: Normal images fitted on.
        validation: Held-out normal images.
        training_steps: Optimiser steps done; ``None`` for a method that does not train.
        losses: Training loss, thinned, (step, loss).
        implementation: Which of several equivalent paths were taken.
        decode_seconds: Spent on decoding these images.
        fit_seconds: Spent on the fit.
    """

    train: int
    validation: int
    training_steps: int | None
    losses: list[tuple[int, float]]
    implementation: dict[str, str]
    decode_seconds: float
    fit_seconds: float


class ModelDescription(_Strict):
    """What a kept model is.

    Attributes:
        method: Name in the registry.
        title: The method as tables print it.
        config: Its options, all of them.
        precision: That its networks were cast to.
        tf32: Whether a GPU might round the factors of float32 products to TF32.
        input_size: Height and width that it takes images in.
        fit_key: SHA-256 over everything that determines it.
        record: Key of the record whose cell fitted it.
        fit: How it was fitted.
        version: Of this package.
        sha256: Of ``model.safetensors``.
    """

    method: str
    title: str
    config: dict[str, Scalar | list[Scalar]]
    precision: Precision
    tf32: bool
    input_size: tuple[int, int]
    fit_key: str
    record: str
    fit: FitFacts
    version: str
    sha256: str = ""


def save_model(directory: Path, detector: Detector[Any], description: ModelDescription) -> ModelDescription:
    """Write a fitted detector into the folder of a cell.

    Returns:
        The description with the SHA-256 of what was written.

    Raises:
        ResultError: The operating system refused, for example because the disk is full.
    """
    _remove_description(directory)  # it must never speak of another model
    content = save(_on_cpu(detector.module().state_dict()))
    write_atomically(directory / MODEL_FILE, lambda file: file.write(content))
    described = description.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    _write_description(directory, described)
    return described


def link_model(source: Path, target: Path) -> ModelDescription:
    """Let a cell's folder have the model of another one too: one file where the file system can, else a copy.

    Raises:
        DataError: There is no model in ``source``.
        ResultError: The operating system refused.
    """
    description = read_description(source)
    if source.resolve() == target.resolve():
        return description
    _remove_description(target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / MODEL_FILE).unlink(missing_ok=True)
        try:
            os.link(source / MODEL_FILE, target / MODEL_FILE)
        except OSError:  # the file system knows no hard links
            shutil.copyfile(source / MODEL_FILE, target / MODEL_FILE)
    except OSError as error:
        raise ResultError(f"cannot write {target / MODEL_FILE}: {error.strerror or error}") from error
    _write_description(target, description)
    return description


def has_model(directory: Path) -> bool:
    """Whether the folder of a cell holds a whole model."""
    return (directory / DESCRIPTION_FILE).is_file() and (directory / MODEL_FILE).is_file()


def kept_models(root: Path) -> dict[str, Path]:
    """The folders of a run that hold a model, by the model's fit key.

    Raises:
        DataError: A description is damaged.
    """
    folders = sorted(path.parent for path in root.glob(f"cells/*/{DESCRIPTION_FILE}"))
    return {read_description(folder).fit_key: folder for folder in folders if has_model(folder)}


def read_description(directory: Path) -> ModelDescription:
    """Read what the model in the folder of a cell is.

    Raises:
        DataError: There is none, or it is damaged.
    """
    path = directory / DESCRIPTION_FILE
    try:
        return ModelDescription.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"there is no model in {directory}: {DESCRIPTION_FILE} is missing\n"
            "  bench run --keep-models keeps the models of its cells."
        ) from error
    except (OSError, ValidationError) as error:
        raise _damaged(path, error) from error


def load_detector(path: Path | str, device: str = "cpu") -> Detector[Any]:
    """Restore a detector that ``bench run --keep-models`` has fitted; needs no training image and no other weights.

    Args:
        path: The folder of a cell, or the ``model.safetensors`` in it.
        device: Where it shall run, ``cpu`` or ``cuda:N``.

    Raises:
        DataError: There is no model, it is damaged, or it is not the one that its description speaks of.
        MethodError: Its method does not exist here, or has changed since so that it cannot use the model.
    """
    directory = Path(path).parent if Path(path).name == MODEL_FILE else Path(path)
    description = read_description(directory)
    method = load_method(description.method)
    settable = {field.name for field in dataclasses.fields(method.Config) if field.init}
    config = make_config(method, None, {name: value for name, value in description.config.items() if name in settable})
    detector = method.restore(config, _read_state(directory / MODEL_FILE, description.sha256))
    set_precision(detector.module(), description.precision)
    detector.module().to(torch.device(device))
    detector.training_steps = description.fit.training_steps
    detector.losses = description.fit.losses
    detector.implementation = description.fit.implementation
    return detector


def _read_state(path: Path, sha256: str) -> Mapping[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the model {path}: {error.strerror or error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise _damaged(path, f"its SHA-256 is {found}, {DESCRIPTION_FILE} says {sha256}")
    try:
        return load(content)
    except SafetensorError as error:
        raise _damaged(path, error) from error


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state, each with memory of its own as the file format wants it."""
    seen: set[int] = set()
    own = {}
    for name, tensor in state.items():
        value = tensor.detach().cpu().contiguous()
        shared = value.data_ptr() in seen or value.untyped_storage().nbytes() != value.nbytes
        own[name] = value.clone() if shared else value
        seen.add(value.data_ptr())
    return own


def _write_description(directory: Path, description: ModelDescription) -> None:
    text = description.model_dump_json(indent=1) + "\n"
    write_atomically(directory / DESCRIPTION_FILE, lambda file: file.write(text.encode()))


def _remove_description(directory: Path) -> None:
    path = directory / DESCRIPTION_FILE
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ResultError(f"cannot replace {path}: {error.strerror or error}") from error


def _damaged(path: Path, reason: object) -> DataError:
    return DataError(f"{path} is damaged ({reason})\n  Delete {path.parent} and run its cell again.")
