"""Images of a user's own, listed in Python: they become a table, so that every command finds them again."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.datasets.cache import Cache, default_cache_directory, replace_atomically
from bench.datasets.layouts.listed import COLUMNS, LAYOUT
from bench.errors import BenchError, UsageError, unknown_name

_TABLE = "scenarios.csv"


def list_images(rows: Sequence[Mapping[str, object]], collection: str, data_root: Path) -> list[str]:
    """Write rows as the table of a collection, in place of the one that an earlier call has written.

    Args:
        rows: Column to value, by image; relative paths are relative to the working directory.
        collection: What the collection is called: the name of its folder, which is made.
        data_root: The folder that holds the collections.

    Returns:
        The names of its scenarios.

    Raises:
        UsageError: There are no rows, a column is unknown, or the folder holds other files.
        DataError: A row makes no sense; ``line`` counts the rows from 2.
    """
    if not rows:
        raise UsageError("no rows: expected one per image, such as {'path': …, 'split': 'train', 'label': 'normal'}")
    for column in {column for row in rows for column in row}:
        if column not in COLUMNS:
            raise unknown_name("column", column, COLUMNS)
    if not collection or "/" in collection or collection.startswith("."):
        raise UsageError(f"{collection!r} is no name of a collection: expected a folder's name")
    folder = data_root / collection
    others = [path.name for path in folder.iterdir() if path.name != _TABLE] if folder.is_dir() else []
    if others:
        raise UsageError(f"{folder} holds other files, such as {others[0]}: choose another name for the collection")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(_absolute(row) for row in rows)
    try:
        with replace_atomically(folder / _TABLE) as file:
            file.write(text.getvalue().encode())
    except OSError as error:
        raise UsageError(f"cannot write {folder / _TABLE}: {error.strerror or error}") from error
    try:
        names = LAYOUT.scenarios(folder)
        for name in names:
            LAYOUT.read(folder, name, Cache(default_cache_directory()))
    except BenchError:
        (folder / _TABLE).unlink()
        raise
    return names


def _absolute(row: Mapping[str, object]) -> dict[str, object]:
    places = {column: Path(str(row[column])).absolute() for column in ("path", "mask") if row.get(column)}
    return {**{column: value for column, value in row.items() if value is not None}, **places}
