"""``bench data check``: whether what is on the disk is what was published."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from bench.commands.flags import console
from bench.option_types import DataRoot, Flag, Masks, default_data_root

if TYPE_CHECKING:
    from rich.console import Console

    from bench.datasets.checking.check import Check
    from bench.datasets.scenario import Scenario

DIFFERS = 3
"""Exit code where something is not as published, or contradicts itself."""


@dataclass(frozen=True)
class CheckOptions:
    """Everything that ``bench data check`` takes.

    Attributes:
        names: all, demo, a collection, or collection/scenario.
        data_root: Folder of the collections.
        masks: nonzero or half: which values of a mask mark a defect, where it holds several labels.
        json: Print what is found as JSON.
    """

    names: Annotated[list[str] | None, Flag(argument="[NAME]...", completions="datasets")] = None
    data_root: DataRoot = field(default_factory=default_data_root)
    masks: Masks = None
    json: bool = False


def check(options: CheckOptions) -> int:
    """Compare counts, names, sizes, masks and contents with what was published, and say how to mend differences.

    Exit code 3 if anything differs from what was published or, in collections of your own, contradicts itself.
    """
    from bench.commands.data.scenarios import named_scenarios
    from bench.datasets.checking.check import check_scenario

    terminal = console()
    scenarios = named_scenarios(options.names, options.data_root, options.masks)
    checks = _check_collections(options.names or ["all"], scenarios)
    for scenario in scenarios:
        with terminal.status(f"checking {scenario.id}"):
            checks.append(check_scenario(scenario))
        if not options.json:
            _show(terminal, checks[-1])
    if options.json:
        _print_json(checks)
    else:
        for collection in checks[: len(checks) - len(scenarios)]:
            _show(terminal, collection)
    return 0 if all(one.good for one in checks) else DIFFERS


def _check_collections(names: Sequence[str], scenarios: "Sequence[Scenario]") -> "list[Check]":
    """Look for published scenarios that are missing from the collections named as a whole."""
    from bench.datasets.catalogue import known_collection
    from bench.datasets.checking.check import check_collection

    wholes: dict[str, list[Scenario]] = defaultdict(list)
    for scenario in scenarios:
        if {"all", scenario.collection.name} & set(names):
            wholes[scenario.collection.name].append(scenario)
    checks = []
    for name, ours in wholes.items():
        known = known_collection(name)
        if known is not None:
            checks.append(check_collection(known, ours[0].folder.parent, [scenario.name for scenario in ours]))
    return [one for one in checks if one is not None]


def _show(terminal: "Console", one: "Check") -> None:
    from rich.text import Text

    compared = f", compared with {one.compared_with}" if one.compared_with else ", not in the catalogue"
    problems = sum(finding.problem for finding in one.findings)
    verdict = ("good", "green") if one.good else (f"{problems} problem{'' if problems == 1 else 's'}", "bold red")
    terminal.print(Text.assemble((one.name, "bold"), compared, ": ", verdict), soft_wrap=True)
    for finding in one.findings:
        style = "red" if finding.problem else "dim"
        terminal.print(Text.assemble("  ", (finding.kind, style), f": {finding.text}"), soft_wrap=True)
        if finding.fix:
            terminal.print(Text(f"    {finding.fix}"), soft_wrap=True)


def _print_json(checks: "Sequence[Check]") -> None:
    import json

    import typer

    listed = [{**dataclasses.asdict(one), "folder": str(one.folder), "good": one.good} for one in checks]
    typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
