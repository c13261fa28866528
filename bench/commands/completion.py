"""What a shell completes: the last name of a comma separated list."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import typer

from bench.errors import user_errors
from bench.option_types import default_data_root


def complete_methods(incomplete: str) -> list[str]:
    """Complete the last of some methods."""
    from methods.registry import method_names

    with suppress(*user_errors()):
        return _completed(incomplete, method_names())
    return []


def complete_datasets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the last of some collections, and after a collection's name and a slash its scenarios."""
    from bench.datasets.demo import DEMO, DEMO_SCENARIOS
    from bench.datasets.inventory import take_inventory

    root = Path(ctx.params.get("data_root") or default_data_root())
    scenarios = {DEMO.name: list(DEMO_SCENARIOS)}
    with suppress(*user_errors()):
        scenarios |= {found.collection.name: list(found.scenarios) for found in take_inventory(root).collections}
    collection, slash, _ = incomplete.rpartition(",")[2].partition("/")
    if slash:
        return _completed(incomplete, [f"{collection}/{name}" for name in scenarios.get(collection, [])])
    return _completed(incomplete, ["all", *scenarios])


def complete_collections(incomplete: str) -> list[str]:
    """Complete the name of a published collection."""
    from bench.datasets.catalogue import known_collections

    return [known.name for known in known_collections() if known.name.startswith(incomplete)]


def complete_weights(incomplete: str) -> list[str]:
    """Complete the name of a file of pretrained weights."""
    from methods.weights.catalogue import weight_files

    return [name for name in weight_files() if name.startswith(incomplete)]


def _completed(incomplete: str, names: Iterable[str]) -> list[str]:
    before, comma, begun = incomplete.rpartition(",")
    given = before.split(",")
    return [f"{before}{comma}{name}" for name in names if name.startswith(begun) and name not in given]
