"""``bench data list``: the published collections, and what of them is there."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from bench.commands.data.get import introduce, published
from bench.commands.flags import console
from bench.option_types import DataRoot, Flag, default_data_root

if TYPE_CHECKING:
    from rich.console import Console

    from bench.datasets.catalogue import KnownCollection, PublishedImages
    from bench.datasets.scenario import Scenario

_LISTED = 3


@dataclass(frozen=True)
class ListOptions:
    """Everything that ``bench data list`` takes.

    Attributes:
        name: Show the scenarios of this published collection.
        data_root: Folder of the collections.
    """

    name: Annotated[str | None, Flag(argument="[NAME]", completions="collections")] = None
    data_root: DataRoot = field(default_factory=default_data_root)


def list_collections(options: ListOptions) -> int:
    """List the published collections: what of them is under the data root, their licence and page."""
    from bench.datasets.layouts import LAYOUTS

    terminal = console()
    ours = _on_disk(options)
    if options.name is not None:
        known = published(options.name)
        introduce(terminal, known)
        _show_scenarios(terminal, known, ours.get(known.name, []))
    else:
        _show_collections(terminal, ours)
        layouts = ", ".join(sorted(layout.title for layout in LAYOUTS))
        terminal.print(f"Layouts read: {layouts}", highlight=False, markup=False, soft_wrap=True)
        terminal.print(f"Data root: {options.data_root}", highlight=False, markup=False, soft_wrap=True)
        terminal.print(
            "bench data list NAME shows a collection's scenarios, bench data get NAME fetches it or says where it is.",
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _on_disk(options: ListOptions) -> "dict[str, list[Scenario]]":
    """The scenarios under the data root by the name of their collection; none where there is no data root."""
    from bench.datasets.cache import Cache, default_cache_directory
    from bench.datasets.inventory import take_inventory

    cache = Cache(default_cache_directory())
    ours: dict[str, list[Scenario]] = defaultdict(list)
    for found in take_inventory(options.data_root).collections:
        ours[found.collection.name] += [found.read(name, cache) for name in found.scenarios]
    return ours


def _show_collections(terminal: "Console", ours: "dict[str, list[Scenario]]") -> None:
    from rich.text import Text

    from bench.datasets.catalogue import known_collections

    known_names = {known.name for known in known_collections()}
    for known in known_collections():
        link = "  (direct link)" if known.archives else ""
        head = Text.assemble((known.name, "bold"), f"  {known.title}: {_coverage(known, ours.get(known.name, []))}")
        lines = (head, Text(f"    {known.licence or 'no licence stated on the page'}"), Text(f"    {known.page}{link}"))
        for line in lines:
            terminal.print(line, soft_wrap=True, highlight=False)
    for name, scenarios in ours.items():
        if name not in known_names:
            head = Text.assemble((name, "bold"), f"  {_counted(len(scenarios))}, not in the catalogue")
            terminal.print(head, soft_wrap=True)


def _coverage(known: "KnownCollection", ours: "Sequence[Scenario]") -> str:
    """How many published scenarios are there, which of them differ, and how many others there are."""
    if not ours:
        return "not here"
    there = [scenario for scenario in ours if scenario.name in known.images]
    different = [scenario.name for scenario in there if scenario.note]
    lines = [f"{len(there)} of {_counted(len(known.images))}"]
    if different:
        more = f" and {len(different) - _LISTED} more" if len(different) > _LISTED else ""
        lines.append(f"{', '.join(different[:_LISTED])}{more} not as published")
    if len(ours) > len(there):
        lines.append(f"{len(ours) - len(there)} of your own")
    return ", ".join(lines)


def _show_scenarios(terminal: "Console", known: "KnownCollection", ours: "Sequence[Scenario]") -> None:
    """Print the published numbers of images, and what is there."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for head in ("Scenario", "Train", "Validation", "Normal", "Anomalous", "On disk"):
        table.add_column(head, justify="left" if head in ("Scenario", "On disk") else "right")
    there = {scenario.name: scenario for scenario in ours}
    for name, images in known.images.items():
        scenario = there.pop(name, None)
        state = "–" if scenario is None else scenario.note or "as published, by names and numbers"
        table.add_row(Text(name), *_numbers(known, images), Text(state))
    for name in there:
        table.add_row(Text(name), *[""] * 4, Text("your own"))
    terminal.print(table)


def _numbers(known: "KnownCollection", images: "PublishedImages") -> list[str]:
    """How many images there are of each set, a question mark where nobody has counted them."""
    counts = [images.train, images.validation, images.test_normal, images.test_anomalous]
    shown = ["?" if number is None else f"{number:,}" for number in counts]
    return shown if known.validation == "own" else [shown[0], "–", *shown[2:]]


def _counted(scenarios: int) -> str:
    return "1 scenario" if scenarios == 1 else f"{scenarios} scenarios"
