"""The scenarios that a user names after a command."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.datasets.scenario import MaskRule, Scenario


def named_scenarios(names: Sequence[str] | None, data_root: Path, masks: "MaskRule | None") -> "list[Scenario]":
    """Find the scenarios named, each once, in the order named; all under the data root when none is.

    Args:
        names: As :func:`bench.datasets.selection.select_scenarios` takes them.
        data_root: The folder that holds the collections.
        masks: Which values of a mask mark a defect; as the catalogue says, else decided from them, when ``None``.

    Raises:
        UsageError: A name is unknown, or nothing is found.
    """
    from bench.datasets.cache import Cache, default_cache_directory
    from bench.datasets.selection import select_scenarios

    cache = Cache(default_cache_directory())
    selected = [scenario for name in names or ["all"] for scenario in select_scenarios(name, data_root, cache, masks)]
    return list({scenario.id: scenario for scenario in selected}.values())
