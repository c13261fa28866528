"""The one error of this package."""


class MetricError(ValueError):
    """Input that no metric can be computed from; the message names the image and the value seen."""
