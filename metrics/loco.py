"""MVTec LOCO: structural and logical anomalies apart, each with all normal images, and the mean of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from metrics.errors import MetricError
from metrics.images import ImageMetrics, check_scores, evaluate_images
from metrics.inputs import MapReader, check_lengths, worker_count
from metrics.maps import Subset
from metrics.ranking import check_limits
from metrics.saturated import Defect, SaturatedMetrics, evaluate_defects

STRUCTURAL, LOGICAL = HALVES = ("structural", "logical")
"""The kinds of anomalies; the defect folders of the collection begin with these words."""
NORMAL = "normal"


class _Named(Protocol):
    """Metrics that know their values by name."""

    def named(self) -> dict[str, float]: ...

    @property
    def undefined(self) -> Mapping[str, str]: ...


MetricsT = TypeVar("MetricsT", bound=_Named)


@dataclass(frozen=True)
class Halves(Generic[MetricsT]):
    """The two halves of MVTec LOCO, each evaluated together with all normal images, and their mean.

    Attributes:
        structural: over structural anomalies and normal images.
        logical: over logical anomalies and normal images.
    """

    structural: MetricsT
    logical: MetricsT

    def named(self) -> dict[str, float]:
        """Return all values under their names in records and tables: ``au_spro@0.05``, ``structural/au_spro@0.05``."""
        structural, logical = self.structural.named(), self.logical.named()
        values = {name: (value + logical[name]) / 2 for name, value in structural.items()}
        values |= {f"{STRUCTURAL}/{name}": value for name, value in structural.items()}
        return values | {f"{LOGICAL}/{name}": value for name, value in logical.items()}

    @property
    def undefined(self) -> dict[str, str]:
        """The reason for each value that is NaN, by name."""
        reasons: dict[str, str] = {}
        for half, metrics in zip(HALVES, (self.structural, self.logical), strict=True):
            for name, reason in metrics.undefined.items():
                reasons[f"{half}/{name}"] = reason
                reasons[name] = f"{half}: {reason}"
        return reasons


@dataclass(frozen=True)
class LocoMetrics(Halves[SaturatedMetrics]):
    """How well the maps of a scenario of MVTec LOCO localise its anomalies."""

    @property
    def au_spro(self) -> dict[float, float]:
        """The mean of both halves at each FPR limit."""
        return {limit: (value + self.logical.au_spro[limit]) / 2 for limit, value in self.structural.au_spro.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be corrected in either half."""
        return (*self.structural.notes, *self.logical.notes)


def loco_halves(kinds: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the images of the structural and of the logical half; normal images are in both.

    Args:
        kinds: "normal", "structural" or "logical" for each image.

    Raises:
        MetricError: another kind.
    """
    for index, kind in enumerate(kinds):
        if kind not in (NORMAL, *HALVES):
            raise MetricError(f"image {index}: the kind is {NORMAL!r}, {STRUCTURAL!r} or {LOGICAL!r}, not {kind!r}")
    structural, logical = ([index for index, kind in enumerate(kinds) if kind in (NORMAL, half)] for half in HALVES)
    return structural, logical


def evaluate_loco(
    maps: Sequence[NDArray[Any]] | NDArray[Any],
    defects: Sequence[Sequence[Defect]],
    kinds: Sequence[str],
    fpr_limits: tuple[float, ...] = (0.05,),
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
) -> LocoMetrics:
    """Evaluate the maps of structural and logical anomalies apart, each with its own FPR axis.

    Args:
        maps: as for ``evaluate_saturated``.
        defects: as for ``evaluate_saturated``.
        kinds: "normal", "structural" or "logical" for each image.
        fpr_limits: upper ends of the FPR axis, each in (0, 1].
        names: a name for each image, used in messages.
        threads: images processed at a time; None uses every core, at most 8.

    Raises:
        MetricError: as ``evaluate_saturated``, or an unknown kind.
    """
    reader = MapReader(maps, names)
    check_lengths(reader, kinds, "kinds")
    check_lengths(reader, defects, "lists of defects")
    limits, workers = check_limits(fpr_limits), worker_count(threads)
    return LocoMetrics(
        *(
            evaluate_defects(reader.subset(positions), Subset(defects, positions), limits, workers)
            for positions in loco_halves(kinds)
        )
    )


def evaluate_loco_images(
    scores: Sequence[float] | NDArray[Any], kinds: Sequence[str], *, names: Sequence[str] | None = None
) -> Halves[ImageMetrics]:
    """Evaluate the image scores of structural and logical anomalies apart.

    Args:
        scores: (n,) finite, higher = more anomalous.
        kinds: "normal", "structural" or "logical" for each image.
        names: a name for each image, used in messages.

    Raises:
        MetricError: lengths differ, a score is not finite, or an unknown kind.
    """
    values, anomalous = check_scores(scores, [kind != NORMAL for kind in kinds], names)
    structural, logical = (np.array(positions, np.intp) for positions in loco_halves(kinds))
    return Halves(
        evaluate_images(values[structural], anomalous[structural]), evaluate_images(values[logical], anomalous[logical])
    )
