"""What other definitions of AU-PRO make of a cell's anomaly maps, kept beside its record and never in it."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from results.beside import read_entries, write_entries

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


def write_definitions(directory: Path, values: Sequence[DefinitionValue]) -> Path:
    """Write the values of the cell whose folder is ``directory``.

    Raises:
        ResultError: The operating system refused.
    """
    return write_entries(directory / DEFINITIONS_FILE, values)


def read_definitions(directory: Path) -> list[DefinitionValue]:
    """Read the values of the cell whose folder is ``directory``; empty if it has none.

    Raises:
        ResultError: The file is damaged.
    """
    return read_entries(directory / DEFINITIONS_FILE, DefinitionValue)
