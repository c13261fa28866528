"""Whether cells that stand together ran in the same environment, and in what their environments differ."""

import re
from collections.abc import Iterable

from results.record import Environment, Record

_ABSENT = "none"


def environment_differences(records: Iterable[Record]) -> str:
    """Say in what the environments of some cells differ: ``torch 2.6.0, 2.7.1; GPU NVIDIA A40, NVIDIA H100``.

    Versions of Python and of packages count, and models of processors and GPUs; what tells machines of a kind apart
    does not, such as their names or numbers of threads. Cells that failed have no numbers and do not count.

    Returns:
        What differs, with the values; empty if nothing does.
    """
    # Few among many cells, so that only these are compared in depth.
    distinct = {_key(record.environment): record.environment for record in records if record.status == "ok"}
    parts = [_parts(environment) for environment in distinct.values()]
    names = dict.fromkeys(name for own in parts for name in own)
    values = {name: {own.get(name, _ABSENT) for own in parts} for name in names}
    return "; ".join(
        f"{name} {', '.join(sorted(own, key=_version_order))}" for name, own in values.items() if len(own) > 1
    )


def _key(environment: Environment) -> tuple[object, ...]:
    return environment.cpu, environment.gpu, environment.python, *environment.packages.items()


def _parts(environment: Environment) -> dict[str, str]:
    machine = {"CPU": environment.cpu, "GPU": environment.gpu or _ABSENT, "Python": environment.python}
    return {**machine, **dict(sorted(environment.packages.items()))}


def _version_order(text: str) -> list[tuple[int, int, str]]:
    """Sorts 2.9.0 before 2.10.0, and any other text as it is."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text)]
