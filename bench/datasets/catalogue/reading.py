"""From TOML files to known collections."""

import tomllib
from collections import Counter
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from bench.datasets.catalogue.known import KnownCollection

_COLLECTION = TypeAdapter(with_config(ConfigDict(extra="forbid"))(KnownCollection))


def read_catalogue(folder: Path) -> tuple[KnownCollection, ...]:
    """Read every collection of a catalogue, by title.

    Raises:
        ValueError: A file is no valid collection, or two have one name or answer to one folder name; names the files.
    """
    read = {path: read_collection(path) for path in sorted(folder.glob("*.toml"))}
    names = Counter(name for known in read.values() for name in {known.name, *known.folders})
    for name, count in names.items():
        if count > 1:
            files = ", ".join(path.name for path, known in read.items() if name in (known.name, *known.folders))
            raise ValueError(f"several collections of the catalogue are called {name!r}: {files}")
    return tuple(sorted(read.values(), key=lambda known: known.title.casefold()))


def read_collection(path: Path) -> KnownCollection:
    """Read one collection.

    Raises:
        ValueError: The file is no valid TOML, or a value is missing, unknown or of a wrong type.
    """
    try:
        return _COLLECTION.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path.name} of the catalogue is no valid TOML: {error}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors())
        raise ValueError(f"{path.name} of the catalogue is wrong: {wrong}") from error
