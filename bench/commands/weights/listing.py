"""``bench weights list``: every known file of pretrained weights, who uses it, and whether it is there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.commands.flags import console
from bench.option_types import WeightsDir
from methods.config import PAPER
from methods.weights.files import default_weights_directory

if TYPE_CHECKING:
    from methods.weights.inventory import KeptFile


@dataclass(frozen=True)
class ListOptions:
    """Everything that ``bench weights list`` takes.

    Attributes:
        weights_dir: Where downloaded weights are kept.
        json: Print the list as JSON.
    """

    weights_dir: WeightsDir = field(default_factory=default_weights_directory)
    json: bool = False


def list_weights(options: ListOptions) -> int:
    """List every known file of pretrained weights: its methods, source, SHA-256, licence, and whether it is there."""
    from methods.weights.catalogue import weight_files
    from methods.weights.inventory import look_up

    with console().status("looking at the files"):
        kept = [look_up(name, options.weights_dir) for name in weight_files()]
    users = users_of_weights()
    if options.json:
        import json

        import typer

        listed = [document(one) | {"methods": users.get(one.name, {})} for one in kept]
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return 0
    _print_table(kept, users)
    terminal = console()
    for text in (
        f"Downloads are kept in {options.weights_dir}",
        "bench weights fetch NAME fetches one, bench weights import FOLDER takes those that were fetched elsewhere.",
    ):
        terminal.print(text, highlight=False, markup=False, soft_wrap=True)
    return 0


def users_of_weights() -> dict[str, dict[str, list[str]]]:
    """Which methods read a file: name of the file to method to the presets with which it does.

    Methods of other packages that cannot be loaded are left out: bench methods names them.
    """
    from methods.config import make_config
    from methods.errors import MethodError
    from methods.registry import load_method, method_names

    users: dict[str, dict[str, list[str]]] = {}
    for name in method_names():
        try:
            method = load_method(name)
        except MethodError:
            continue
        for preset in (None, *method.presets):
            for file in method.weight_files(make_config(method, preset, {})):
                presets = users.setdefault(file, {}).setdefault(name, [])
                presets += [preset or PAPER] if (preset or PAPER) not in presets else []
    return users


def document(kept: "KeptFile") -> dict[str, Any]:
    """What is known of a file, as plain values that JSON can hold."""
    download = kept.file.download
    return {
        "name": kept.name,
        "title": kept.file.title,
        "licence": kept.file.licence,
        "url": download.url if download else None,
        "pinned_sha256": download.sha256 if download else None,
        "origin": kept.file.origin or None,
        "state": kept.state,
        "path": str(kept.path) if kept.path else None,
        "sha256": kept.sha256,
        "bytes": kept.bytes,
    }


def _print_table(kept: "Sequence[KeptFile]", users: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for head in ("Name", "State", "Size, MB", "Methods", "SHA-256", "Licence", "Source"):
        table.add_column(head, justify="right" if head.startswith("Size") else "left", overflow="fold")
    styles = {"missing": "yellow", "corrupt": "bold red"}
    for one in kept:
        size, download = one.bytes, one.file.download
        table.add_row(
            one.name,
            Text(one.state, styles.get(one.state, "green")),
            "?" if size is None else f"{size / 1e6:.1f}",
            ", ".join(map(_user, *zip(*users[one.name].items(), strict=True))) if one.name in users else "–",
            (one.sha256 or (download.sha256 if download else ""))[:12] or "–",
            Text(one.file.licence),
            Text(download.url if download else one.file.origin or f"installed: {one.file.title}"),
        )
    console().print(table)


def _user(method: str, presets: Sequence[str]) -> str:
    return method if PAPER in presets else f"{method} ({', '.join(presets)})"
