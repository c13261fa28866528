"""``bench data get``: a published collection, or where it is to be had."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from bench.commands.flags import console
from bench.commands.transfer import Transfer, say
from bench.errors import UsageError, unknown_name
from bench.option_types import Flag, Folder, default_data_root

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from bench.datasets.catalogue import KnownCollection

NOT_OFFERED = 3
"""Exit code where a page must be visited: nothing has been fetched."""


@dataclass(frozen=True)
class GetOptions:
    """Everything that ``bench data get`` takes.

    Attributes:
        name: A published collection, as bench data list names it.
        to: Folder that the collection's folder is put into.
        accept_licence: Accept the licence without being asked.
    """

    name: Annotated[str, Flag(argument="NAME", completions="collections")]
    to: Annotated[Folder | None, Flag(default="$BENCH_DATA, else ./data")] = None
    accept_licence: bool = False


def get(options: GetOptions) -> int:
    """Fetch a collection that its owners let everybody download, or say where it is to be had (exit code 3).

    A download that was cut off is continued by the same command.
    """
    from bench.datasets.download import download_collection, folder_of

    known, root, terminal = published(options.name), options.to or default_data_root(), console()
    there = folder_of(known, root)
    if there is not None:
        say(
            terminal, f"{known.title} is there already: {there}\nbench data check {known.name} says how complete it is."
        )
        return 0
    introduce(terminal, known)
    if not known.archives:
        _say_where(terminal, known, root)
        return NOT_OFFERED
    _ask_for_licence(terminal, known, given=options.accept_licence)
    with Transfer(terminal) as transfer:
        folder = download_collection(known, root, transfer.show)
    say(terminal, f"{known.title} is in {folder}\nbench data check {known.name} compares it with what was published.")
    return 0


def published(name: str) -> "KnownCollection":
    """Find the published collection that a user names, by its name or by what its folder is commonly called.

    Raises:
        UsageError: There is none.
    """
    from pathlib import Path

    from bench.datasets.catalogue import known_by_folder, known_collection, known_collections
    from bench.datasets.demo import DEMO

    known = known_collection(name) or known_by_folder(Path(name))
    if known is not None:
        return known
    if name == DEMO.name:
        raise UsageError("the demo collection needs no download: --datasets demo makes it on first use")
    raise unknown_name("collection", name, [known.name for known in known_collections()])


def introduce(terminal: "Console", known: "KnownCollection") -> None:
    """Print what a collection is, whose, and under which licence, in its owners' words."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(known.title, "bold"), title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    lines = [
        ("Page", known.page),
        ("Licence", known.licence or "its owners state none on the page"),
        ("Citation", known.citation),
        ("Note", known.note),
    ]
    for head, text in lines:
        if text:
            table.add_row(head, Text(text))
    terminal.print(table)


def _say_where(terminal: "Console", known: "KnownCollection", root: "Path") -> None:
    """Print what to do where owners offer no direct link."""
    scenarios = ", ".join(list(known.images)[:3]) + (", …" if len(known.images) > 3 else "")
    say(
        terminal,
        f"{known.title} has no direct link: get it from the page above and unpack it to\n"
        f"  {root / known.name}\n"
        f"so that this folder holds the published files as they are ({scenarios}), then run\n"
        f"  bench data check {known.name}",
    )


def _ask_for_licence(terminal: "Console", known: "KnownCollection", *, given: bool) -> None:
    """Have the licence accepted, once for all calls.

    Raises:
        UsageError: It is not, or nobody can be asked.
    """
    from rich.prompt import Confirm

    from bench.datasets.download import accept_licence, licence_accepted

    if licence_accepted(known):
        return
    if not given:
        if not (terminal.is_terminal and sys.stdin.isatty()):
            raise UsageError(
                f"the licence of {known.title} is not accepted yet, and there is no terminal to ask on\n"
                f"  Read it above and on {known.page}; to accept it, run\n"
                f"  bench data get {known.name} --accept-licence"
            )
        if not Confirm.ask("Do you accept this licence?", console=terminal, default=False):
            raise UsageError(f"the licence of {known.title} is not accepted: nothing was fetched")
    accept_licence(known)
