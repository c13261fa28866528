"""``bench datasets``: which collections and scenarios there are."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.demo import DEMO, DEMO_SCENARIOS
from bench.options import default_data_root


def list_datasets(data_root: Path | None, console: Console) -> None:
    """Print the collections under the data root with their scenarios and coverage."""
    from bench.datasets.selection import list_collections

    root = data_root or default_data_root()
    found = list_collections(root, Cache(default_cache_directory()))
    console.print(f"Data root: {escape(str(root))}{'' if root.is_dir() else ' (does not exist)'}", highlight=False)
    table = Table()
    for head in ("Collection", "Title", "Coverage", "Scenarios"):
        table.add_column(head)
    for collection, scenarios, coverage in found:
        table.add_row(*map(Text, (collection.name, collection.title, coverage, ", ".join(scenarios))))
    table.add_row(DEMO.name, DEMO.title, "embedded", ", ".join(DEMO_SCENARIOS))
    console.print(table)
    if not found:
        console.print(
            "Nothing found: point --data-root or BENCH_DATA at a folder with <collection>/<scenario>/train/good, or "
            "use --datasets demo, which needs no data.",
            highlight=False,
        )
