"""User errors of the reports."""


class ReportError(Exception):
    """A report cannot be made: the message names the cause, the values allowed and the next step."""
