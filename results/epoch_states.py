"""What each epoch's state of a training is worth on the test images, kept beside a record and never in it.

It tells what a stopping rule that looks at the test images would gain: no result, but the leak of results elsewhere.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from results.beside import read_entries, write_entries

ORACLE_FILE = "oracle.json"


class EpochState(BaseModel):
    """The detector after some epochs.

    Attributes:
        epoch: Epochs done; a fraction where the training ends within one.
        metrics: Of the test images, by name; ``None`` where undefined.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epoch: float
    metrics: dict[str, float | None]


def write_epoch_states(directory: Path, states: Sequence[EpochState]) -> Path:
    """Write the states of the cell whose folder is ``directory``, the last one last.

    Raises:
        ResultError: The operating system refused.
    """
    return write_entries(directory / ORACLE_FILE, states)


def read_epoch_states(directory: Path) -> list[EpochState]:
    """Read the states of the cell whose folder is ``directory``; empty if none were looked at.

    Raises:
        ResultError: The file is damaged.
    """
    return read_entries(directory / ORACLE_FILE, EpochState)
