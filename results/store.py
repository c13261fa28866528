"""A run folder: one folder per cell, with its record and, on request, its arrays."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from results.atomic import write_atomically
from results.errors import ResultError
from results.migrations import load_record
from results.record import Record

RECORD_FILE = "record.json"
_KEY_LENGTH = 12
_NAME_LENGTH = 40


@dataclass(frozen=True)
class CellId:
    """What names a cell's folder.

    Attributes:
        method: Name in the registry.
        collection: Short name of the collection.
        scenario: Name within the collection.
        seed: Of the cell.
        key: The record's key, whole.
    """

    method: str
    collection: str
    scenario: str
    seed: int
    key: str

    @classmethod
    def of(cls, record: Record) -> "CellId":
        """The cell that ``record`` is the outcome of."""
        return cls(record.method, record.collection.name, record.scenario, record.seed, record.key)

    @property
    def folder(self) -> str:
        """Name of the cell's folder: letters, digits, dot, underscore and hyphen only, unique by the key's prefix."""
        names = "-".join(safe_name(name) for name in (self.method, self.collection, self.scenario))
        return f"{names}-s{self.seed}-{safe_name(self.key[:_KEY_LENGTH])}"


def safe_name(name: str) -> str:
    """Make of any name a part of a file name: at most 40 of letters, digits, dot, underscore and hyphen.

    Different names may give the same part; the keys tell them apart.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".-")[:_NAME_LENGTH] or "_"


class RunStore:
    """The records and arrays of one run.

    Several processes may write different cells at once, and others may read meanwhile: a cell exists from the moment
    its record does, and a record is whole or absent. Write a cell's arrays before its record.

    Args:
        root: The run folder; made when the first cell is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def cell_directory(self, cell: CellId | Record) -> Path:
        """Folder of a cell, whether it exists or not."""
        identity = CellId.of(cell) if isinstance(cell, Record) else cell
        return self.root / "cells" / identity.folder

    def write(self, record: Record) -> Path:
        """Write a cell's record, in place of an earlier one of the same key, and return its file.

        Raises:
            ResultError: The operating system refused, for example because the disk is full.
        """
        path = self.cell_directory(record) / RECORD_FILE
        text = record.model_dump_json(indent=1) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))
        return path

    def remove(self, cell: CellId | Record) -> None:
        """Remove a cell's folder, if there is one.

        Raises:
            ResultError: The operating system refused.
        """
        folder = self.cell_directory(cell)
        try:
            # The record first: from then on the cell does not exist.
            (folder / RECORD_FILE).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError as error:
            raise ResultError(f"cannot remove {folder}: {error.strerror or error}") from error

    def find(self, key: str) -> Record | None:
        """The record with this key, or ``None``.

        Raises:
            ResultError: It exists and cannot be read.
        """
        prefix = safe_name(key[:_KEY_LENGTH])
        for path in sorted(self.root.glob(f"cells/*-{prefix}/{RECORD_FILE}")):
            record = load_record(path)
            if record.key == key:
                return record
        return None

    def records(self) -> list[Record]:
        """All records, by method, collection, scenario, seed and key; unfinished cells are passed over.

        Raises:
            ResultError: A record cannot be read.
        """
        records = [load_record(path) for path in self.root.glob(f"cells/*/{RECORD_FILE}")]
        return sorted(records, key=lambda record: tuple(vars(CellId.of(record)).values()))
