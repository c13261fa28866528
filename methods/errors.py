"""User errors of the detectors."""


class MethodError(Exception):
    """A detector cannot do what was asked: the message names cause, value seen, values allowed, next command."""


class WeightsError(MethodError):
    """Pretrained weights are missing, unreachable or not the ones they claim to be."""
