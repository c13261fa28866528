"""The rules that every method obeys: one frozen object, hashed into each record."""

import hashlib
import json
from dataclasses import asdict, dataclass

from results.record import Scalar


@dataclass(frozen=True)
class Protocol:
    """How a cell is measured. Whatever changes a result of the same method on the same images belongs here.

    Attributes:
        images: How test and training images reach the method.
        ground_truth: What happens to the masks.
        maps: How an anomaly map gets the size of its image.
        evaluated_on: Which test images enter each metric.
        regions: What counts as one defect region.
        evaluated_state: Which training state is evaluated.
        validation: Which images are held out of the training images.
        saturated: How a scenario with structural and logical anomalies is scored.
        arithmetic: In which precision networks run.
        validation_fraction: Share of the training images held out where a scenario has no validation images.
        fpr_limits: Upper ends of the false-positive-rate axis.
        quartile_fpr_limit: The one of them at which defect-size quartiles and size robustness are given.
    """

    images: str = "whole image, no crop, resized bilinearly with antialiasing to the method's input size"
    ground_truth: str = "never resized"
    maps: str = "upsampled bilinearly to the original image size, a method's own padding removed first"
    evaluated_on: str = "all test images, normal and anomalous"
    regions: str = "8-connected"
    evaluated_state: str = "the last one of a training length fixed in advance"
    validation: str = (
        "held-out normal training images, drawn from the seed, or the scenario's own; only for a method that "
        "calibrates on them, any other is fitted on all training images"
    )
    saturated: str = "AU-sPRO; structural and logical anomalies apart, each with all normal images, then their mean"
    arithmetic: str = "float32, no products rounded to TF32; a row says where it is otherwise"
    validation_fraction: float = 0.1
    fpr_limits: tuple[float, ...] = (0.05, 0.3, 1.0)
    quartile_fpr_limit: float = 0.3

    def as_record(self) -> dict[str, Scalar | list[Scalar]]:
        """The rules as a record stores them."""
        return {name: list(rule) if isinstance(rule, tuple) else rule for name, rule in asdict(self).items()}

    def of_fits(self) -> dict[str, Scalar | list[Scalar]]:
        """The rules that a fit obeys; the others only concern what is made of its maps."""
        return {name: rule for name, rule in self.as_record().items() if name in _OF_FITS}

    @property
    def hash(self) -> str:
        """SHA-256 of the rules, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.as_record(), sort_keys=True).encode()).hexdigest()


_OF_FITS = frozenset({"images", "evaluated_state", "validation", "arithmetic", "validation_fraction"})

PROTOCOL = Protocol()
