"""What the rows are, and what they were measured with: methods, weights, protocol, data, machines."""

from collections import Counter
from dataclasses import dataclass

from reports.content.environments import environment_differences
from reports.content.selection import Result, Selection
from reports.content.tables import count
from reports.content.timings import TimingSelection
from reports.content.variants import Variant
from results.record import Environment, Record, Weights

_HASH_LENGTH = 12
_SHOWN_NOTES = 5


@dataclass(frozen=True)
class Item:
    """A named line."""

    name: str
    text: str


@dataclass(frozen=True)
class Description:
    """A title and its lines."""

    title: str
    items: tuple[Item, ...]


def describe_rows(selection: Selection) -> tuple[Description, ...]:
    """Describe every row of the tables: its source, and everything that its label stands for."""
    return tuple(
        _describe_row(variant, [result.record for result in selection.results if result.variant == variant])
        for variant in selection.variants
    )


def provenance(selection: Selection) -> tuple[Description, ...]:
    """Describe protocol, data and machines."""
    if not selection.results:
        return ()
    return (_protocols(selection), _data(selection), _environments(selection))


def timing_machines(timings: TimingSelection) -> tuple[Description, ...]:
    """Describe the machines of timings: a line each."""
    machines = {
        record.machine.id: record.machine for row in (*timings.rows, *timings.invalid) for record in row.records
    }
    items = []
    for name, machine in sorted(machines.items()):
        packages = [
            f"{package} {machine.packages[package]}" for package in ("torch", "numpy") if package in machine.packages
        ]
        host = f"{machine.cpu}, {count(machine.cores, 'core')}, {machine.memory_bytes / 2**30:.0f} GiB"
        gpu = machine.gpu
        card = f"{gpu.name}, driver {gpu.driver or 'unknown'}, PCIe {gpu.pcie or 'unknown'}" if gpu else "no GPU timed"
        items.append(Item(name, "; ".join([card, host, machine.platform, f"Python {machine.python}", *packages])))
    return (Description("Machines that were timed", tuple(items)),) if items else ()


def machines(selection: Selection) -> list[str]:
    """Name in short what the cells ran on: ``NVIDIA RTX A6000, torch 2.13.0``."""
    environments = [result.record.environment for result in selection.results]
    torch = [environment.packages.get("torch") for environment in environments]
    return sorted(
        {
            f"{environment.gpu or environment.cpu}{f', torch {version}' if version else ''}"
            for environment, version in zip(environments, torch, strict=True)
        }
    )


def _describe_row(variant: Variant, records: list[Record]) -> Description:
    steps = sorted({record.training_steps for record in records if record.training_steps is not None})
    length = f"{variant.train_scale:g}" + (" (the method's own length)" if variant.train_scale == 1 else "")
    if steps:
        length += f", {steps[0]}" + (f" to {steps[-1]}" if len(steps) > 1 else "")
        length += " optimiser step" + ("" if steps == [1] else "s")
    items = [
        Item("method", f"{variant.method}; {variant.source}"),
        *([Item("preset", variant.preset)] if variant.preset else []),
        Item("differs from its paper", "; ".join(variant.deviations) or "nothing stated"),
        *(Item("weights", _weights(weights)) for weights in variant.weights),
        Item("seeds", ", ".join(map(str, sorted({record.seed for record in records})))),
        Item("train scale", length),
        Item("options", ", ".join(variant.options) or "none"),
        Item("precision", f"{variant.precision}{', TF32' if variant.tf32 else ''}"),
        *([Item("implementation", "; ".join(paths))] if (paths := _paths(records)) else []),
        Item("protocol", variant.protocol_hash[:_HASH_LENGTH]),
        *([Item("different environments", mixed)] if (mixed := environment_differences(records)) else []),
    ]
    return Description(variant.label, tuple(items))


def _paths(records: list[Record]) -> list[str]:
    """Which of several equivalent paths the cells took; all that occur, as it may differ between machines."""
    taken = sorted({path for record in records for path in record.implementation.items()})
    return [f"{part}: {path}" for part, path in taken]


def _weights(weights: Weights) -> str:
    digest = f", SHA-256 {weights.sha256[:_HASH_LENGTH]}…" if weights.sha256 else ""
    return f"{weights.name}, {weights.source}, {weights.tag}{digest}"


def _protocols(selection: Selection) -> Description:
    protocols = {result.record.protocol_hash: result.record.protocol for result in selection.results}
    items = []
    for digest, rules in sorted(protocols.items()):
        items.append(Item("hash", digest[:_HASH_LENGTH]))
        items += [Item(name, _rule(value)) for name, value in rules.items()]
    return Description("Protocol", tuple(items))


def _rule(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_rule(part) for part in value)
    return "none" if value is None else str(value)


def _data(selection: Selection) -> Description:
    scenarios: dict[str, Result] = {}
    for result in selection.results:
        if result.record.data is not None:
            scenarios.setdefault(f"{result.record.collection.title}, {result.record.scenario}", result)
    items = []
    for name, result in scenarios.items():
        data = result.record.data
        assert data is not None
        depth = [f"{data.bit_depth} bits per channel, of which the 8 highest are used"] if data.bit_depth else []
        note = "".join(f"; {text}" for text in (*([data.note] if data.note else []), *depth, *data.notes))
        fitted = "" if data.train is None else f"{data.train} normal images to fit, {data.validation} to validate, "
        items.append(
            Item(
                name,
                f"{fitted}{data.test_normal} normal and {data.test_anomalous} anomalous to test, fingerprint "
                f"{data.fingerprint[:_HASH_LENGTH]}{note}",
            )
        )
    return Description("Data", (*items, *_corrections(selection)))


def _corrections(selection: Selection) -> list[Item]:
    """What the evaluation had to correct in the ground truth of each scenario; the same for every method."""
    notes: dict[str, dict[str, None]] = {}
    for result in selection.results:
        name = f"{result.record.collection.title}, {result.record.scenario}, ground truth"
        notes.setdefault(name, {}).update(dict.fromkeys(result.record.notes))
    items = []
    for name, own in notes.items():
        shown = [
            *list(own)[:_SHOWN_NOTES],
            *([f"and {len(own) - _SHOWN_NOTES} more"] if len(own) > _SHOWN_NOTES else []),
        ]
        items += [Item(name, "; ".join(shown))] if own else []
    return items


def _environments(selection: Selection) -> Description:
    texts = Counter(_environment(result.record.environment) for result in selection.results)
    return Description("Machines", tuple(Item(count(number, "cell"), text) for text, number in sorted(texts.items())))


def _environment(environment: Environment) -> str:
    gpu = f", {environment.gpu}" if environment.gpu else ""
    driver = f", driver {environment.driver}" if environment.driver else ""
    dirty = " with uncommitted changes" if environment.git_dirty else ""
    commit = f"; commit {environment.git_commit[:_HASH_LENGTH]}{dirty}" if environment.git_commit else ""
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    return (
        f"{environment.cpu}, {count(environment.threads, 'thread')}, device {environment.device}{gpu}{driver}; "
        f"{environment.platform}; Python {environment.python}; {packages}{commit}"
    )
