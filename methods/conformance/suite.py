"""All checks, and the options with which the built-in methods are checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from methods.config import unknown
from methods.conformance import check, declarations, fitting, predicting, saving
from methods.conformance.check import Check, Outcome
from methods.conformance.subject import Subject
from methods.detector import Detector

CHECKS: Mapping[str, Check] = {
    one.name: one for one in (*declarations.CHECKS, *fitting.CHECKS, *predicting.CHECKS, *saving.CHECKS)
}
"""Every check, by name, in the order in which they are made."""


def run_check(name: str, subject: Subject) -> Outcome:
    """Look whether a detector keeps one promise.

    Args:
        name: A key of ``CHECKS``.
        subject: The detector; its fit is shared by all checks.

    Raises:
        MethodError: There is no such check, or the subject excepts one that does not exist.
    """
    for known in (name, *subject.exceptions):
        if known not in CHECKS:
            raise unknown("check", known, CHECKS)
    return check.run(CHECKS[name], subject)


def check_detector(
    method: type[Detector[Any]],
    small_options: Mapping[str, object] | None = None,
    *,
    exceptions: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Look whether a detector keeps every promise of the contract, on small synthetic images on the CPU.

    Args:
        method: The detector's class.
        small_options: Values of its options with which a fit takes seconds and no download.
        exceptions: Checks that are not made, by name, each with the reason.

    Returns:
        What came out, in the order of ``CHECKS``; the detector conforms if none is ``broken``.

    Raises:
        MethodError: An option or a check that does not exist.
    """
    subject = Subject(method, small_options, exceptions=exceptions)
    return [run_check(name, subject) for name in CHECKS]


@dataclass(frozen=True)
class Setup:
    """How a method is checked.

    Attributes:
        options: That make it small and independent of downloads.
        exceptions: Checks that are not made, by name, each with the reason.
    """

    options: Mapping[str, object]
    exceptions: Mapping[str, str] = field(default_factory=dict)


LEARNS_NOTHING = {"orientation": "a random teacher tells nothing apart after a few steps"}
SLOW_FIT = dict.fromkeys(
    ("determinism", "observed", "one-image", "gray", "constant", "test-data"),
    "the fit of efficientad_s is the same, and faster",
)

BUILT_IN_SETUPS: Mapping[str, Setup] = {
    "efficientad_s": Setup({"teacher": "random", "training_steps": 2}, LEARNS_NOTHING),
    "efficientad_m": Setup({"teacher": "random", "training_steps": 1}, LEARNS_NOTHING | SLOW_FIT),
    "patchcore": Setup({"backbone": "efficientnet_lite0", "image_size": (96, 64), "coreset_fraction": 0.1}),
    "fastflow": Setup(
        {"backbone": "efficientnet_lite0", "image_size": (96, 64), "training_steps": 12, "batch_size": 4}
    ),
    "spade": Setup({"backbone": "efficientnet_lite0", "image_size": (96, 64)}),
    "simplenet": Setup(
        {"backbone": "efficientnet_lite0", "image_size": (96, 64), "dim": 64, "hidden_dim": 64, "epochs": 20}
    ),
    "patchcore_ens": Setup(
        {
            "backbones": ("efficientnet_lite0", "efficientnet_lite0"),
            "backbone_weights": ("auto", "embedded"),
            "strides": ("8+16", "4+8"),
            "image_size": (96, 64),
            "coreset_fraction": 0.1,
        }
    ),
    "ast": Setup({"backbone": "efficientnet_lite0", "image_size": (96, 64), "epochs": 10, "student_channels": 64}),
    "dsr": Setup(
        {"vq_model": "random", "image_size": (64, 96), "batch_size": 1, "detection_steps": 1, "upsampling_steps": 1},
        LEARNS_NOTHING,
    ),
    "rdpp": Setup({"backbone": "efficientnet_lite0", "image_size": (96, 64), "epochs": 10}),
    "l2bt": Setup(
        {"backbone": "efficientnet_lite0", "levels": (3, 4), "image_size": (96, 64), "hidden_dim": 64, "epochs": 20}
    ),
    "st": Setup({"patch_sizes": (33,), "teachers": ("embedded",), "image_size": (64, 72), "stride": 4, "epochs": 3}),
    "gcad": Setup(
        {"teacher": "embedded", "image_size": (96, 64), "unet_width": 4, "jitter": 0.0, "training_steps": 30}
    ),
}
"""One line per built-in method, by its name in the registry."""
