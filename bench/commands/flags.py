"""From the typed model of a command's options to its flags, arguments and help."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from bench.commands.completion import (
    complete_collections,
    complete_datasets,
    complete_methods,
    complete_weights,
)
from bench.option_types import Flag
from bench.options import described, flag_name, resolve

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130

_COMPLETIONS = {
    "": None,
    "methods": complete_methods,
    "datasets": complete_datasets,
    "collections": complete_collections,
    "weights": complete_weights,
}


def add_command(
    app: typer.Typer,
    command: Callable[[Any], int],
    *,
    name: str | None = None,
    group: str = "",
    config_file: bool = False,
) -> None:
    """Add a command whose single parameter is a model of its options and whose result is the exit code.

    Args:
        app: What it is added to.
        command: The function; its docstring is the help.
        name: On the command line; the function's, with hyphens, when ``None``.
        group: The command that it is a part of, as ``data`` is of ``bench data get``.
        config_file: Take ``--config``, a file with the flags' names as keys.
    """
    model = get_type_hints(command)["options"]
    title = name or command.__name__.replace("_", "-")

    def parse(**given: object) -> None:
        path = given.pop("config", None)
        config = Path(str(path)) if path is not None else None
        options = resolve(model, given, " ".join(filter(None, ("bench", group, title))), config)
        try:
            code = command(options)
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            code = INTERRUPTED
        raise typer.Exit(code)

    parameters = sorted(_parameters(model, config_file), key=lambda parameter: parameter.default is not parameter.empty)
    parse.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    parse.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name=title, help=command.__doc__)(parse)


def add_late_command(app: typer.Typer, name: str, module: str, summary: str, group: str = "") -> None:
    """Add a command whose module takes seconds to import, which happens when it is called.

    Args:
        app: What it is added to.
        name: On the command line; the function in the module has underscores for its hyphens.
        module: Dotted name.
        summary: What the list of commands says of it.
        group: The command that it is a part of.
    """

    class Late(TyperCommand):
        def make_context(self, *arguments: Any, **more: Any) -> Any:
            own = typer.Typer(add_completion=False, context_settings=dict(self.context_settings))
            add_command(own, getattr(import_module(module), name.replace("-", "_")), group=group)
            return typer.main.get_command(own).make_context(*arguments, **more)

    @app.command(name=name, cls=Late, help=summary)
    def _() -> None: ...


def console() -> "Console":
    """The terminal, or what output is redirected to."""
    from rich.console import Console

    return Console()


def _parameters(model: type[Any], config_file: bool) -> Iterator[inspect.Parameter]:
    hints, texts = get_type_hints(model, include_extras=True), described(model)
    for option in dataclasses.fields(model):
        base, flag = _parted(hints[option.name])
        text = " ".join(filter(None, (texts[option.name], _default(option, flag))))
        required = option.default is option.default_factory is dataclasses.MISSING and not config_file
        yield _parameter(option.name, base, flag, text, required=required)
    if config_file:
        text = "TOML file with these flags' names as keys; flags win."
        yield _parameter("config", Path, Flag(), text, required=False)


def _parameter(name: str, base: Any, flag: Flag, text: str, *, required: bool) -> inspect.Parameter:
    kind, metavar = _kind(base)
    settings: dict[str, Any] = {"help": text, "show_default": False, "autocompletion": _COMPLETIONS[flag.completions]}
    long = f"--{flag_name(name)}"
    if flag.argument:
        annotation = typer.Argument(metavar=flag.argument, **settings)
    elif kind is bool:
        annotation = typer.Option(f"{long}/--no-{long[2:]}" if flag.negatable else long, **settings)
    else:
        annotation = typer.Option(long, metavar=metavar, **settings)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        # A flag that is not given leaves it to the configuration file or the model.
        default=inspect.Parameter.empty if required else None,
        annotation=Annotated[kind if required else kind | None, annotation],
    )


def _parted(hint: Any) -> tuple[Any, Flag]:
    """A field's type without metadata and without None, and what its metadata say of the flag."""
    flag = Flag()
    while get_origin(hint) in (Annotated, Union, UnionType):
        if get_origin(hint) is Annotated:
            hint, *metadata = get_args(hint)
            flag = next((item for item in metadata if isinstance(item, Flag)), flag)
            continue
        members = [member for member in get_args(hint) if member is not NoneType]
        if len(members) > 1:  # a word or something else, which is validated later
            return str, flag
        hint = members[0]
    return hint, flag


def _kind(base: Any) -> tuple[Any, str | None]:
    """What typer makes of a value, and what help calls it. Text stays text: it is validated with the model."""
    if base in (bool, Path):
        return base, None
    if get_origin(base) is Literal:
        return str, "|".join(map(str, get_args(base)))
    if get_origin(base) in (dict, list):
        return list[str], None
    return str, {int: "INTEGER", float: "FLOAT"}.get(base)


def _default(option: dataclasses.Field[Any], flag: Flag) -> str:
    """What help says of an option that is not given."""
    value = option.default
    if flag.default:
        return f"Default: {flag.default}."
    if value is None or value is dataclasses.MISSING or (isinstance(value, bool) and not flag.negatable):
        return ""
    if isinstance(value, bool):
        shown = "yes" if value else "no"
    elif isinstance(value, tuple):
        shown = ",".join(map(str, value))
    else:
        shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"Default: {shown}." if shown else ""
