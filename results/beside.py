"""Lists kept in a file beside a cell's record, and JSON that is read without being checked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from results.atomic import write_atomically
from results.errors import ResultError

Entry = TypeVar("Entry", bound=BaseModel)


def write_entries(path: Path, entries: Sequence[BaseModel]) -> Path:
    """Write the entries as JSON.

    Raises:
        ResultError: The operating system refused.
    """
    text = json.dumps([entry.model_dump() for entry in entries], indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def read_entries(path: Path, kind: type[Entry]) -> list[Entry]:
    """Read what :func:`write_entries` wrote; empty if there is no file.

    Raises:
        ResultError: The file is damaged.
    """
    try:
        text = path.read_bytes()
        # Made last: most cells have no such file, and an adapter takes longer to make than that to find out.
        return TypeAdapter(list[kind]).validate_json(text)  # type: ignore[valid-type]
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        raise ResultError(f"{path} is damaged ({error}); delete it and evaluate again") from error


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, not checked, such as a record of whatever version; ``None`` if it holds none.

    Enough to count and to estimate, and many times as fast as reading a record.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
