"""Detectors in Python files of the user's, named ``path/to/mine.py:MyDetector``."""

import importlib
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path

from methods.errors import MethodError

_FOLDERS: dict[str, Path] = {}
"""Of the files imported so far, by module name."""


def is_file(name: str) -> bool:
    """Whether the name of a method is that of a detector in a file."""
    return name.rpartition(":")[0].endswith(".py")


def load_from_file(name: str) -> object:
    """Import a file, which may import its neighbours, and return what it defines under a name.

    Args:
        name: The file and the name, with a colon between them.

    Raises:
        MethodError: There is no such file, it cannot be imported, it has no such name, or another module is called
            like it.
    """
    file, _, attribute = name.rpartition(":")
    path = Path(file).expanduser().resolve()
    if not path.is_file():
        raise MethodError(f"{file} does not exist\n  FILE:CLASS takes a Python file, such as my_method.py:Mine.")
    module = path.stem
    if not module.isidentifier():
        raise MethodError(f"{file} cannot be imported: {module!r} is no Python name; rename it, for example mine.py")
    # Under its own name, and from a folder on the path: worker processes import it likewise.
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
        importlib.invalidate_caches()
    _check_name(module, path)
    _FOLDERS[module] = path.parent
    try:
        return vars(importlib.import_module(module)).get(attribute) or _missing(module, file, attribute)
    except MethodError:
        raise
    except Exception as error:
        last = "".join(traceback.format_exception_only(error)).strip()
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).name == path.name]
        where = f"line {lines[-1]}: " if lines else ""
        raise MethodError(f"{file} cannot be imported: {where}{last}") from error


def neighbours(module: str) -> set[str]:
    """Names of the modules and packages beside a file that was imported, itself included; none for other modules."""
    folder = _FOLDERS.get(module)
    if folder is None:
        return set()
    return {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}


def _check_name(module: str, path: Path) -> None:
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None) if loaded is not None else getattr(find_spec(module), "origin", None)
    if origin is None or Path(origin).resolve() != path:
        raise MethodError(
            f"{path.name} cannot be imported: another module is called {module!r} ({origin or 'built into Python'})\n"
            "  Rename the file."
        )


def _missing(module: str, file: str, attribute: str) -> object:
    import difflib

    names = [name for name, value in vars(sys.modules[module]).items() if isinstance(value, type)]
    close = difflib.get_close_matches(attribute, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise MethodError(f"there is no {attribute!r} in {file}{hint}")
