"""When two predictions are the same."""

from torch import Tensor

from methods.conformance.check import BrokenPromiseError
from methods.detector import Prediction

TOLERANCE = 1e-4
"""Of numbers that are summed in another order, relative to the largest of them."""


def identical(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same bit for bit; what is no number equals itself."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def require_identical(prediction: Prediction, expected: Prediction, what: str) -> None:
    """Require maps and scores to be the same bit for bit.

    Args:
        prediction: What a detector says.
        expected: What it should say.
        what: The two cases, to begin the message with.

    Raises:
        BrokenPromiseError: They differ.
    """
    for name in ("maps", "scores"):
        values, wanted = getattr(prediction, name), getattr(expected, name)
        if not identical(values, wanted):
            raise BrokenPromiseError(f"{what}: {name} differ{_by(values, wanted)}.")


def require_close(prediction: Prediction, expected: Prediction, what: str) -> None:
    """Require maps and scores to be the same but for rounding; the arguments are those of :func:`require_identical`.

    Raises:
        BrokenPromiseError: They differ.
    """
    for name in ("maps", "scores"):
        values, wanted = getattr(prediction, name), getattr(expected, name)
        largest = float(wanted.nan_to_num().abs().max())
        if values.shape != wanted.shape or not _difference(values, wanted) <= TOLERANCE * largest:
            raise BrokenPromiseError(
                f"{what}: {name} differ{_by(values, wanted)}; the largest is {largest:.3g}, and {TOLERANCE:g} of it "
                "is allowed for rounding."
            )


def share_not_finite(values: Tensor) -> str:
    """How many of some values are infinite or no number, in percent."""
    return f"{1 - float(values.isfinite().float().mean()):.0%}"


def _difference(values: Tensor, wanted: Tensor) -> float:
    return float((values.detach().double().nan_to_num() - wanted.double().nan_to_num()).abs().max())


def _by(values: Tensor, wanted: Tensor) -> str:
    if values.shape != wanted.shape:
        return f" in shape, {tuple(values.shape)} and {tuple(wanted.shape)}"
    return f" by up to {_difference(values, wanted):.3g}"
