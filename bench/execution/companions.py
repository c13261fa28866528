"""Whether runs that share a run folder belong together: the same images under the same names, the same packages."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench.cells import Cell
from bench.errors import DataError, UsageError
from bench.execution.claims import Holder
from bench.machine.environment import package_versions
from results.store import RunStore


def fingerprints(cells: Iterable[Cell]) -> dict[str, str]:
    """Scenario to the fingerprint of its files here; one that cannot be read has none."""
    prints = {}
    for scenario in {cell.scenario.id: cell.scenario for cell in cells}.values():
        try:
            prints[scenario.id] = scenario.fingerprint
        except DataError:  # its cells will fail and say why
            continue
    return prints


def versions() -> dict[str, str]:
    """Version of Python and of the packages that results may depend on."""
    return {"python": platform.python_version(), **package_versions()}


def check_companions(holder: Holder, others: Sequence[Holder], root: Path, *, strict: bool) -> None:
    """Refuse to share a run folder with a run that does not belong together with this one.

    Args:
        holder: This run.
        others: Those that are alive.
        root: The run folder.
        strict: Refuse other versions of packages, too, those of existing records included.

    Raises:
        UsageError: Says what differs, and where.
        ResultError: A record cannot be read.
    """
    for other in others:
        for scenario, fingerprint in holder.data.items():
            theirs = other.data.get(scenario, fingerprint)
            if theirs != fingerprint:
                raise UsageError(
                    f"{scenario} has other files on {other.host} than here ({holder.host}): fingerprint {theirs[:12]} "
                    f"there, {fingerprint[:12]} here\n"
                    f"  bench data check {scenario} says on each host what is there; or choose another --out."
                )
    if not strict:
        return
    for other in others:
        _check_versions(holder.packages, other.packages, other.label)
    for record in RunStore(root).records():
        recorded = {"python": record.environment.python, **record.environment.packages}
        _check_versions(holder.packages, recorded, f"the record of {record.method} on {record.scenario}")


def _check_versions(ours: Mapping[str, str], theirs: Mapping[str, str], whose: str) -> None:
    differing = sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name])
    if differing:
        listed = ", ".join(f"{name} {theirs[name]} (here {ours[name]})" for name in differing)
        raise UsageError(
            f"{whose} has other versions of packages: {listed}\n"
            "  Install the same ones, choose another --out, or leave --strict-environment out: tables "
            "mark rows of mixed environments."
        )
