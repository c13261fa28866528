"""``bench datasets``: which collections and scenarios there are."""

from dataclasses import dataclass, field

from bench.commands.flags import console
from bench.option_types import DataRoot, default_data_root


@dataclass(frozen=True)
class DatasetsOptions:
    """Everything that ``bench datasets`` takes.

    Attributes:
        data_root: Folder of the collections.
    """

    data_root: DataRoot = field(default_factory=default_data_root)


def datasets(options: DatasetsOptions) -> int:
    """List the collections and scenarios under the data root."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from bench.datasets.demo import DEMO, DEMO_SCENARIOS
    from bench.datasets.inventory import take_inventory

    terminal, root = console(), options.data_root
    inventory = take_inventory(root)
    terminal.print(f"Data root: {escape(str(root))}{'' if root.is_dir() else ' (does not exist)'}", highlight=False)
    table = Table()
    for head in ("Collection", "Title", "Layout", "Coverage", "Scenarios"):
        table.add_column(head)
    for found in inventory.collections:
        scenarios = ", ".join(found.scenarios)
        row = (found.collection.name, found.collection.title, found.layout.title, found.coverage, scenarios)
        table.add_row(*map(Text, row))
    table.add_row(DEMO.name, DEMO.title, "MVTec AD", "embedded", ", ".join(DEMO_SCENARIOS))
    terminal.print(table)
    for over in inventory.passed_over:
        terminal.print(f"Not read: {escape(str(over.path))} {escape(over.why)}", highlight=False, soft_wrap=True)
    if not inventory.collections:
        terminal.print(
            "Nothing found: point --data-root or BENCH_DATA at a folder with <collection>/<scenario>/train/good, or "
            "use --datasets demo, which needs no data.",
            highlight=False,
        )
    return 0
