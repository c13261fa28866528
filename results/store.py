"""A run folder: one folder per cell, with its record and, on request, its arrays."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results.atomic import sync_directory, write_atomically
from results.errors import ResultError
from results.migrations import load_record
from results.record import Record

RECORD_FILE = "record.json"
WORK_FOLDER = ".work"
"""In a run folder: what only running processes need."""
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


@dataclass(frozen=True)
class Draft:
    """A cell's folder in the making, which nobody reads until it is published.

    Attributes:
        directory: Where to write, the record last.
        published: The cell's folder.
        replaces: Whether the cell has a record already, or may have one, that is to be replaced.
        superseded: A file from whose existence on the draft is not to replace anything, as another process has taken
            the cell over.
    """

    directory: Path
    published: Path
    replaces: bool = True
    superseded: Path | None = None

    def write(self, record: Record) -> None:
        """Write the record into the draft.

        Raises:
            ResultError: The operating system refused, for example because the disk is full.
        """
        write_record(self.directory, record)

    def publish(self, remove: Sequence[str] = ()) -> bool:
        """Make the draft the cell's folder: files that the folder has besides stay.

        A first record is published by renaming the draft, which the file system grants one process only.

        Args:
            remove: Names of files of the folder that the draft makes invalid.

        Returns:
            Whether this draft was published; else another process has published the cell, and the draft is gone.

        Raises:
            ResultError: The operating system refused.
        """
        try:
            self.published.parent.mkdir(parents=True, exist_ok=True)
            granted = self._rename() or (self._may_replace() and self._merge(remove))
            sync_directory(self.published.parent)
        except OSError as error:
            raise ResultError(f"cannot write {self.published}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
        return granted

    def _rename(self) -> bool:
        try:
            self.directory.rename(self.published)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def _may_replace(self) -> bool:
        superseded = self.superseded is not None and self.superseded.exists()
        return not superseded and (self.replaces or not (self.published / RECORD_FILE).exists())

    def _merge(self, remove: Sequence[str]) -> bool:
        for name in remove:
            (self.published / name).unlink(missing_ok=True)
        for path in sorted(self.directory.iterdir(), key=lambda path: path.name == RECORD_FILE):
            target = self.published / path.name
            if path.name == RECORD_FILE and not self.replaces:
                try:
                    os.link(path, target)  # other than a renaming it replaces nothing
                except FileExistsError:
                    return False
            else:
                path.replace(target)
        sync_directory(self.published)
        return True


def write_record(directory: Path, record: Record) -> Path:
    """Write a record into the folder of its cell, and return its file.

    Raises:
        ResultError: The operating system refused, for example because the disk is full.
    """
    text = record.model_dump_json(indent=1) + "\n"
    write_atomically(directory / RECORD_FILE, lambda file: file.write(text.encode()))
    return directory / RECORD_FILE


class RunStore:
    """The records and arrays of one run.

    Several processes may write cells at once, and others may read meanwhile: a cell exists from the moment its record
    does, and a record is whole or absent.

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
        return write_record(self.cell_directory(record), record)

    def draft(
        self,
        cell: CellId | Record,
        token: str = "",
        *,
        replaces: bool = True,
        superseded: Path | None = None,
    ) -> Draft:
        """An empty draft of a cell's folder.

        Args:
            cell: The cell.
            token: Tells the drafts of one cell apart; a draft that is there with the same token is removed.
            replaces: Whether an existing record is to be replaced.
            superseded: A file from whose existence on it is not.
        """
        published = self.cell_directory(cell)
        directory = self.root / WORK_FOLDER / "drafts" / f"{published.name}.{token or uuid.uuid4().hex}"
        shutil.rmtree(directory, ignore_errors=True)
        return Draft(directory, published, replaces, superseded)

    def clear_drafts(self) -> None:
        """Remove what processes that were killed have left of cells that have a record by now."""
        for draft in (self.root / WORK_FOLDER / "drafts").glob("*"):
            if (self.root / "cells" / draft.name.rpartition(".")[0] / RECORD_FILE).exists():
                shutil.rmtree(draft, ignore_errors=True)

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
