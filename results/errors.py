"""User errors of the results."""


class ResultError(Exception):
    """A record or an array file cannot be read or written: the message names the file, the cause and the next step."""
