"""What other definitions of AU-PRO make of a cell's anomaly maps, kept beside its record and never in it."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from results.atomic import write_atomically
from results.errors import ResultError

DEFINITIONS_FILE = "definitions.json"


class DefinitionValue(BaseModel):
    """One definition and its value.

    Attributes:
        name: Short and unique.
        description: What it does, in a sentence.
        source: Where it is found.
        value: Nominally in [0, 1]; ``None`` where the definition gives nothing.
        deviation: From the exact value at FPR 0.3.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    description: str
    source: str
    value: float | None
    deviation: float | None


_VALUES = TypeAdapter(list[DefinitionValue])


def write_definitions(directory: Path, values: Sequence[DefinitionValue]) -> Path:
    """Write the values of the cell whose folder is ``directory``.

    Raises:
        ResultError: The operating system refused.
    """
    path = directory / DEFINITIONS_FILE
    text = json.dumps([value.model_dump() for value in values], indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def read_definitions(directory: Path) -> list[DefinitionValue]:
    """Read the values of the cell whose folder is ``directory``; empty if it has none.

    Raises:
        ResultError: The file is damaged.
    """
    path = directory / DEFINITIONS_FILE
    try:
        return _VALUES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        raise ResultError(f"{path} is damaged ({error}); delete it and evaluate again") from error
