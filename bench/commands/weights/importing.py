"""``bench weights import``: weights that were fetched elsewhere, for machines without network."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from bench.commands.flags import console
from bench.commands.transfer import say
from bench.errors import UsageError
from bench.option_types import Flag, WeightsDir
from methods.weights.files import default_weights_directory

NOT_ALL = 3
"""Exit code where some of the files named are not known or cannot be read; the others are there."""


@dataclass(frozen=True)
class ImportOptions:
    """Everything that ``bench weights import`` takes.

    Attributes:
        paths: Files, or folders that hold some, such as torch's checkpoints or the hub folder of Hugging Face.
        weights_dir: Where downloaded weights are kept.
    """

    paths: Annotated[list[str], Flag(argument="FILE_OR_FOLDER...")]
    weights_dir: WeightsDir = field(default_factory=default_weights_directory)


def import_files(options: ImportOptions) -> int:
    """Copy weights that were fetched elsewhere into the cache; they are recognised by SHA-256, whatever their names."""
    from methods.weights.catalogue import weight_files
    from methods.weights.files import sha256_of
    from methods.weights.inventory import candidates, keep, recognise

    terminal, paths = console(), [Path(path).expanduser() for path in options.paths]
    looked_at, refused = [], []
    imported: dict[str, Path] = {}
    for file in candidates(paths):
        try:
            with terminal.status(f"reading {file.name}"):
                name = recognise(sha256_of(file))
        except OSError as error:
            refused.append(f"{file} cannot be read: {error.strerror or error}")
            continue
        looked_at.append(file)
        if name is None:
            refused += [f"{file} is none of the files of bench weights list"] if file in paths else []
        elif name not in imported:
            download = weight_files()[name].download
            assert download is not None
            imported[name] = keep(file, download, options.weights_dir)
            say(terminal, f"{name} is there: {imported[name]}")
    if not imported:
        raise _nothing_recognised(looked_at, refused)
    for reason in refused:
        say(terminal, f"not imported: {reason}")
    return NOT_ALL if refused else 0


def _nothing_recognised(looked_at: Sequence[Path], refused: Sequence[str]) -> UsageError:
    reasons = "".join(f"\n  {reason}" for reason in refused[:3])
    return UsageError(
        f"nothing was imported: of {len(looked_at)} files that could be read none is known{reasons}\n"
        "  bench weights list names those that are known; weights of your own are an option of the method:\n"
        "  --set METHOD.backbone_weights=PATH."
    )
