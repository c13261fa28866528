"""``bench weights verify``: whether the weights in the cache are the ones they should be."""

from dataclasses import dataclass, field

from bench.commands.flags import console
from bench.commands.transfer import say
from bench.commands.weights.listing import document
from bench.option_types import WeightsDir
from methods.weights.files import default_weights_directory

CORRUPT = 3
"""Exit code where a file is not the one it should be."""


@dataclass(frozen=True)
class VerifyOptions:
    """Everything that ``bench weights verify`` takes.

    Attributes:
        weights_dir: Where downloaded weights are kept.
        json: Print what is found as JSON.
    """

    weights_dir: WeightsDir = field(default_factory=default_weights_directory)
    json: bool = False


def verify(options: VerifyOptions) -> int:
    """Compute the SHA-256 of all weights in the cache anew; exit code 3 if one is not the file that it should be."""
    from methods.weights.catalogue import weight_files
    from methods.weights.inventory import look_up

    terminal = console()
    with terminal.status("reading the files"):
        kept = [look_up(name, options.weights_dir) for name in weight_files()]
    cached = [one for one in kept if one.state in ("in cache", "corrupt")]
    corrupt = [one for one in cached if one.state == "corrupt"]
    if options.json:
        import json

        import typer

        typer.echo(json.dumps([document(one) for one in cached], indent=2, ensure_ascii=False))
        return CORRUPT if corrupt else 0
    for one in corrupt:
        assert one.file.download is not None
        found = f"its SHA-256 is {one.sha256}" if one.sha256 else "it cannot be read"
        say(
            terminal,
            f"corrupt: {one.path}: {found}, expected {one.file.download.sha256}\n"
            f"  bench weights fetch {one.name} replaces it.",
        )
    good = len(cached) - len(corrupt)
    say(terminal, f"{good} of {len(cached)} files in {options.weights_dir} are the ones they should be")
    return CORRUPT if corrupt else 0
