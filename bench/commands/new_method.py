"""``bench new-method``: a working detector to start from, with its test."""

import keyword
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UsageError
from bench.option_types import Flag, Folder


@dataclass(frozen=True)
class NewMethodOptions:
    """Everything that ``bench new-method`` takes.

    Attributes:
        name: Of the detector, such as my_method.
        out: Folder to write to.
    """

    name: Annotated[str, Flag(argument="NAME")]
    out: Annotated[Folder, Flag(default="this folder")] = field(default_factory=Path)


def new_method(options: NewMethodOptions) -> int:
    """Write a working detector to start from, NAME.py, and its test, test_NAME.py."""
    module, folder = options.name, options.out
    if not re.fullmatch(r"[a-z][a-z0-9_]*", module) or keyword.iskeyword(module):
        raise UsageError(
            f"{module!r} cannot be the name of a method's file\n"
            "  Allowed: lower-case letters, digits and underscores, a letter first, and no word of Python's, such as "
            "my_method."
        )
    _check_free(module)
    name = "".join(part.capitalize() for part in module.split("_"))
    words = {"module": module, "name": name, "title": module.replace("_", " ").capitalize()}
    files = {folder / f"{module}.py": "method.py.jinja", folder / f"test_{module}.py": "test_method.py.jinja"}
    for path in files:
        if path.exists():
            raise UsageError(f"{path} exists already\n  Choose another name, or another folder with --out.")
    for path, template in files.items():
        _write(path, template, words)
        typer.echo(str(path))
    file = folder / f"{module}.py"
    typer.echo(
        f"\nbench check-method {file}:{name}\nbench run --methods {file}:{name} --datasets demo/gravel\n"
        f"pytest {folder / f'test_{module}.py'}"
    )
    return 0


def _check_free(module: str) -> None:
    """Refuse a name under which Python would import something else."""
    import importlib.util

    if importlib.util.find_spec(module) is not None:
        raise UsageError(f"{module!r} is the name of an installed module: a file of this name would not be found")


def _write(path: Path, template: str, words: dict[str, str]) -> None:
    import jinja2

    from results.atomic import write_atomically

    # Not the usual braces: Python has them too.
    environment = jinja2.Environment(
        variable_start_string="<<",
        variable_end_string=">>",
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader("bench"),
        keep_trailing_newline=True,
        autoescape=False,
    )
    text = environment.get_template(template).render(words)
    write_atomically(path, lambda file: file.write(text.encode()))
