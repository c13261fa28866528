"""Which detectors exist, by name, without importing them: ``bench --help`` must not load torch."""

import importlib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from methods.config import unknown
from methods.errors import MethodError
from methods.from_file import is_file, load_from_file

if TYPE_CHECKING:
    from methods.detector import Detector

ENTRY_POINT_GROUP = "bench.methods"
"""Where an installed package offers detectors of its own: ``my_method = "my_package.module:MyDetector"``."""

BUILT_IN = {
    "efficientad_s": "methods.efficientad.detector:EfficientAdS",
    "efficientad_m": "methods.efficientad.detector:EfficientAdM",
    "patchcore": "methods.patchcore:PatchCore",
    "fastflow": "methods.fastflow:FastFlow",
    "spade": "methods.spade:Spade",
    "simplenet": "methods.simplenet:SimpleNet",
    "patchcore_ens": "methods.patchcore_ensemble:PatchCoreEnsemble",
    "ast": "methods.asymmetric_student:AsymmetricStudentTeacher",
    "rdpp": "methods.rdpp.detector:Rdpp",
    "dsr": "methods.dsr.detector:Dsr",
    "l2bt": "methods.l2bt:L2bt",
    "st": "methods.uninformed_students:UninformedStudents",
    "gcad": "methods.gcad.detector:Gcad",
}


def method_names() -> list[str]:
    """Names of all detectors: the built-in ones in the order of ``BUILT_IN``, then installed packages' by name.

    Raises:
        MethodError: Two packages claim one name.
    """
    return list(_references())


def chosen_methods(names: Iterable[str]) -> list[str]:
    """Names of detectors as a user gives them, each once; ``all`` stands for all that :func:`method_names` knows."""
    expanded = [every for name in names for every in (method_names() if name == "all" else [name])]
    return list(dict.fromkeys(expanded))


def load_method(name: str) -> "type[Detector[Any]]":
    """Import the detector called ``name``.

    Besides those of :func:`method_names` there are detectors in files of the user's, ``path/to/mine.py:MyDetector``,
    and the models of anomalib, ``anomalib:Padim``.

    Raises:
        MethodError: Unknown name, two packages claim one name, or what an installed package or a file offers cannot be
            imported or is no detector.
    """
    if is_file(name):
        return _checked(name, name, load_from_file(name))
    if name.startswith("anomalib:"):
        from methods.from_anomalib.detector import anomalib_method

        return anomalib_method(name)
    references = _references()
    if name not in references:
        raise MethodError(f"{unknown('method', name, references)}, or FILE:CLASS such as my_method.py:Mine")
    reference = references[name]
    module, _, attribute = reference.partition(":")
    try:
        method = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if name in BUILT_IN:
            raise
        raise MethodError(
            f"method {name!r} cannot be loaded from {reference}: {error}\n"
            f"  Repair or uninstall the package whose entry point group {ENTRY_POINT_GROUP!r} offers it."
        ) from error
    return _checked(name, reference, method)


def _checked(name: str, reference: str, method: object) -> "type[Detector[Any]]":
    from methods.detector import Detector

    if not (isinstance(method, type) and issubclass(method, Detector) and method is not Detector):
        raise MethodError(f"method {name!r}: {reference} is not a subclass of methods.detector.Detector")
    return method


def _references() -> dict[str, str]:
    # A package that is found twice on the path, as editable installs are, offers the same thing twice.
    offered = {(point.name, point.value): point for point in entry_points(group=ENTRY_POINT_GROUP)}
    references = dict(BUILT_IN)
    for name, value in sorted(offered):
        if name in references:
            raise MethodError(
                f"method {name!r} exists twice: {references[name]} and {value} of {_package(offered[name, value])}\n"
                "  Uninstall one of the packages, or rename the method in its entry point."
            )
        references[name] = value
    return references


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name}" if point.dist else "an installed package"
