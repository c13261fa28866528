"""User errors of the runner."""


class BenchError(Exception):
    """The user can mend this: the message names cause, value seen, values allowed and the next command."""


class DataError(BenchError):
    """A data set is missing, incomplete or damaged."""


class UsageError(BenchError):
    """An option or a name makes no sense: exit code 2."""
