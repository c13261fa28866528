"""User errors of the runner."""

from collections.abc import Iterable


class BenchError(Exception):
    """The user can mend this: the message names cause, value seen, values allowed and the next command."""


class DataError(BenchError):
    """A data set is missing, incomplete or damaged."""


class UsageError(BenchError):
    """An option or a name makes no sense: exit code 2."""


def user_errors() -> tuple[type[Exception], ...]:
    """What the command line prints without a traceback, from every room.

    The rooms may not import each other, so each has a base class of its own. They are imported on demand: some of the
    rooms take seconds to load.
    """
    from methods.errors import MethodError
    from metrics.errors import MetricError
    from reports.errors import ReportError
    from results.errors import ResultError

    return BenchError, MethodError, MetricError, ReportError, ResultError


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> UsageError:
    """Build the error for a name that does not exist, with the closest one that does."""
    from difflib import get_close_matches

    names = list(allowed)
    close = get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return UsageError(f"unknown {kind} {name!r}{hint}\n  Allowed: {', '.join(names) or 'none'}")
