"""Does a detector find small defects too? Per-region results, size quartiles, the smallest detectable area."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.errors import MetricError

QUARTILES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Regions:
    """The defect regions, in order of image and, within an image, of their first pixel, or as they were annotated.

    Attributes:
        image: (r,) index of the image; of one half of LOCO too its place among all images.
        area: (r,) number of pixels.
        contribution: for each FPR limit (r,) the region's own area under its overlap curve, divided by the limit;
            AU-PRO, or AU-sPRO, is their mean. NaN where that is undefined.
        overlap: for each FPR limit (r,) the share of the region found at the lowest threshold within the limit; empty
            for regions with a saturation.
        saturation: (r,) how many pixels have to be found for the region to count as found, or None where all count.
        overlap_above_threshold: (r,) the share whose score exceeds the threshold that was asked for, or None.
    """

    image: NDArray[np.int64]
    area: NDArray[np.int64]
    contribution: Mapping[float, NDArray[np.float64]]
    overlap: Mapping[float, NDArray[np.float64]]
    saturation: NDArray[np.int64] | None = None
    overlap_above_threshold: NDArray[np.float64] | None = None

    def rows(
        self, names: Sequence[str] | None = None, defect_types: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return one row per region, ready for a table: ``au_pro@L``, or ``au_spro@L`` with a saturation, and so on.

        Args:
            names: a name for each image of the evaluation.
            defect_types: the type of the defects of each image of the evaluation.
        """
        metric = "au_pro" if self.saturation is None else "au_spro"
        rows = []
        for region, (image, area) in enumerate(zip(self.image.tolist(), self.area.tolist(), strict=True)):
            row: dict[str, Any] = {"image": image, "area": area}
            if names is not None:
                row["name"] = names[image]
            if defect_types is not None:
                row["defect_type"] = defect_types[image]
            if self.saturation is not None:
                row["saturation"] = int(self.saturation[region])
            row |= {f"{metric}@{limit}": float(values[region]) for limit, values in self.contribution.items()}
            row |= {f"overlap@{limit}": float(values[region]) for limit, values in self.overlap.items()}
            if self.overlap_above_threshold is not None:
                row["overlap_above_threshold"] = float(self.overlap_above_threshold[region])
            rows.append(row)
        return rows


@dataclass(frozen=True)
class Quartiles:
    """AU-PRO over the regions up to each quartile of the region areas: Q1 the smallest, Q4 all.

    Attributes:
        areas: the 25, 50, 75 and 100 % quantiles of the region areas (linear interpolation), in pixels.
        au_pro: AU-PRO over the regions no larger than that.
        robustness: mean of the four × (1 - |Q4 - Q1| / their maximum); 1 is perfect at every size.
    """

    areas: tuple[float, ...]
    au_pro: tuple[float, ...]
    robustness: float


def robustness(au_pro: Sequence[float]) -> float:
    """Return the robustness to defect size of AU-PRO over Q1 … Q4: mean × (1 - |Q4 - Q1| / maximum).

    Zero when AU-PRO is zero at every size; NaN when it is undefined at one.
    """
    if not any(au_pro):
        return 0.0
    return float(np.mean(au_pro) * (1 - abs(au_pro[-1] - au_pro[0]) / np.max(au_pro)))


def minimum_detectable_area(
    area: Sequence[float] | NDArray[Any], overlap: Sequence[float] | NDArray[Any], recall: float = 0.5
) -> float:
    """Return the smallest region area from which on the expected overlap is at least ``recall``.

    The expectation is the isotonic regression of overlap on area: the non-decreasing function of the area that
    fits the regions best. It needs no window width, and one lucky small region does not decide it.

    Args:
        area: (r,) of the regions, in pixels.
        overlap: (r,) the share of each region that is found at some threshold, in [0, 1]; or 0 and 1 for missed
            and found, whatever found means to you.
        recall: in (0, 1].

    Returns:
        An area of one of the regions; NaN when the expectation stays below ``recall`` at every size.

    Raises:
        MetricError: the arrays differ in length, or ``recall`` is out of range.
    """
    areas = np.asarray(area, np.float64)
    overlaps = np.asarray(overlap, np.float64)
    if areas.shape != overlaps.shape or areas.ndim != 1:
        raise MetricError(f"areas of shape {areas.shape}, but overlaps of shape {overlaps.shape}")
    if not 0 < recall <= 1:
        raise MetricError(f"recall must lie in (0, 1], is {recall}")
    sizes, group = np.unique(areas, return_inverse=True)
    sums = np.bincount(group, weights=overlaps, minlength=sizes.size)
    counts = np.bincount(group, minlength=sizes.size)
    blocks: list[tuple[float, int, float]] = []  # of equal expectation: sum, regions, smallest area
    for total, count, size in zip(sums.tolist(), counts.tolist(), sizes.tolist(), strict=True):
        while blocks and blocks[-1][0] * count >= total * blocks[-1][1]:
            before, regions, smallest = blocks.pop()
            total, count, size = total + before, count + regions, smallest
        blocks.append((total, count, size))
    return next((size for total, count, size in blocks if total >= recall * count), float("nan"))
