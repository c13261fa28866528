"""Reading records of every schema version that was ever written."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from results.errors import ResultError
from results.record import SCHEMA_VERSION, Record

Migration = Callable[[dict[str, Any]], dict[str, Any]]


def _name_tf32(document: dict[str, Any]) -> dict[str, Any]:
    """Version 3 added what is known of a fit apart from its evaluation, and said whether a GPU may use TF32.

    Until then nothing kept a GPU's convolutions from it, as is the default of PyTorch.
    """
    if not str(document.get("environment", {}).get("device", "")).startswith("cuda"):
        return {**document, "schema_version": 3}
    return {**document, "schema_version": 3, "tf32": True, "deviations": [*document.get("deviations", []), "TF32"]}


# Version n to the function that makes version n + 1 of it. A new schema version adds one line here and one golden
# file of the version before to the tests.
MIGRATIONS: Mapping[int, Migration] = {
    # Version 2 added what only an evaluation of given maps has, all of it optional.
    1: lambda document: {**document, "schema_version": 2},
    2: _name_tf32,
    # Version 4 added thresholds, the conditions that images were taken under, and more notes on files; all optional.
    3: lambda document: {**document, "schema_version": 4},
    # Version 5 added the attempts that were interrupted and the peak of memory, both optional.
    4: lambda document: {**document, "schema_version": 5},
}


def load_record(path: Path) -> Record:
    """Read one ``record.json`` of this or an older schema version.

    Raises:
        ResultError: The file cannot be read, is no record, or was written by a newer version.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ResultError(f"cannot read the record {path}: {error.strerror or error}") from error
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        return _load_document(text, path)
    # What has no version is of none, though the field has a default.
    return record if "schema_version" in record.model_fields_set else _load_document(text, path)


def _load_document(text: bytes, path: Path) -> Record:
    """Read a record that is not, as it stands, one of the current version."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ResultError(f"{path} is damaged ({error}); delete its folder and run again to redo the cell") from error
    if not isinstance(document, dict) or not isinstance(document.get("schema_version"), int):
        raise ResultError(f"{path} is not a record: it has no schema_version; remove it from the run folder")
    try:
        return Record.model_validate_json(json.dumps(_migrate(document, path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        raise ResultError(
            f"{path} does not follow schema version {SCHEMA_VERSION}: {where}: {first['msg']} "
            f"({error.error_count()} problems); delete its folder and run again to redo the cell"
        ) from error


def _migrate(document: dict[str, Any], path: Path) -> dict[str, Any]:
    version = document["schema_version"]
    if version > SCHEMA_VERSION:
        raise ResultError(
            f"{path} has schema version {version}, this installation reads up to {SCHEMA_VERSION}; "
            "install the version of this package that wrote it, or a newer one"
        )
    while version < SCHEMA_VERSION:
        if version not in MIGRATIONS:
            raise ResultError(
                f"{path} has schema version {version}, this installation reads 1 to {SCHEMA_VERSION}; "
                "delete its folder and run again to redo the cell"
            )
        document = MIGRATIONS[version](document)
        version = document["schema_version"]
    return document
