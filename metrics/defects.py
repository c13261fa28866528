"""The defect regions and their pixels: gathered in the first pass, ranked in the second."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics import engine
from metrics.buckets import sample_of
from metrics.inputs import FloatArray, MapReader, read_mask, share_out
from metrics.ranking import Ranking


@dataclass(frozen=True)
class DefectPixels:
    """What the first pass collects from the anomalous images.

    Attributes:
        scores: (p,) ascending.
        region: (p,) the region that each belongs to.
        image: (r,) the image of each region.
        area: (r,) the area of each region.
        sample: scores of some pixels of the same images, defect or normal.
        shapes: for each image the shape of its mask, None where it has none.
        empty_masks: images with a mask that marks nothing.
    """

    scores: FloatArray
    region: NDArray[np.int64]
    image: NDArray[np.int64]
    area: NDArray[np.int64]
    sample: FloatArray
    shapes: list[tuple[int, ...] | None]
    empty_masks: tuple[int, ...]


@dataclass(frozen=True)
class _ImageRegions:
    scores: FloatArray  # of each defect pixel
    region: NDArray[np.int32]  # of each defect pixel
    area: NDArray[np.int64]  # of each region
    sample: FloatArray


def collect_defects(
    reader: MapReader, masks: Sequence[NDArray[Any] | None] | NDArray[Any], workers: int
) -> DefectPixels:
    """Label the regions of every mask and gather the scores under them: the first pass."""
    from metrics import kernels

    shapes: list[tuple[int, ...] | None] = [None] * len(masks)
    found: dict[int, _ImageRegions] = {}

    def gather(index: int) -> None:
        given = masks[index]
        if given is None:
            return
        mask = read_mask(given, reader.label(index))
        shapes[index] = mask.shape
        pixels = np.flatnonzero(mask)
        if pixels.size:
            region, regions = kernels.label_regions(pixels, mask.shape[1])
            scores = reader.read(index, mask.shape)
            found[index] = _ImageRegions(
                scores.reshape(-1)[pixels], region, np.bincount(region, minlength=regions), sample_of(scores).copy()
            )

    share_out(len(masks), [gather] * workers)
    images = sorted(found)
    parts = [found[index] for index in images]
    counts = [part.area.size for part in parts]
    first = np.cumsum([0, *counts])
    scores, region = engine.sort_with(
        np.concatenate([part.scores for part in parts] or [np.empty(0, np.float32)]),
        np.concatenate(
            [part.region + offset for part, offset in zip(parts, first[:-1], strict=True)] or [np.empty(0, np.int64)]
        ),
    )
    return DefectPixels(
        scores,
        region,
        np.repeat(np.array(images, np.int64), counts),
        np.concatenate([part.area for part in parts] or [np.empty(0, np.int64)]),
        np.concatenate([part.sample for part in parts] or [np.empty(0, np.float32)]),
        shapes,
        tuple(index for index, shape in enumerate(shapes) if shape is not None and index not in found),
    )


@dataclass(frozen=True)
class RankedDefects:
    """The defect pixels, and how many normal pixels reach the score of each.

    Attributes:
        pixels: the defect pixels and their regions.
        threshold_of: (p,) the threshold of the ranking at which each pixel is found.
        ranking: the distinct scores of defect pixels among the normal pixels.
    """

    pixels: DefectPixels
    threshold_of: NDArray[np.int64]
    ranking: Ranking

    @property
    def undefined_reason(self) -> str:
        """Why no pixel metric is defined, or an empty string."""
        if not self.pixels.shapes:
            return "there are no images"
        if all(shape is None for shape in self.pixels.shapes):
            return "no image is anomalous"
        if self.pixels.scores.size == 0:
            return "no mask marks a defect pixel"
        if self.ranking.normals == 0:
            return "every pixel is a defect pixel"
        return ""

    def region_au_pro(self, limit: float) -> NDArray[np.float64]:
        """Return (r,) the area under each region's overlap curve up to the FPR limit, divided by the limit."""
        from metrics import kernels

        first, units = self.ranking.unit_areas(limit)
        sums = np.zeros(self.pixels.area.size)
        kernels.sum_by_region(self.pixels.region, self.threshold_of, units, first, sums)
        return sums / self.pixels.area

    def region_overlap(self, limit: float) -> NDArray[np.float64]:
        """Return (r,) the share of each region found at the lowest threshold within the FPR limit."""
        return self._share_from(int(np.searchsorted(self.threshold_of, self.ranking.first_within(limit))))

    def region_overlap_above(self, threshold: float) -> NDArray[np.float64]:
        """Return (r,) the share of each region whose score exceeds ``threshold``."""
        return self._share_from(int(np.searchsorted(self.pixels.scores, threshold, side="right")))

    def punishing(self, excluded: NDArray[np.bool_]) -> "RankedDefects":
        """Return the same with the pixels of the ``excluded`` (r,) regions counted among the normal pixels."""
        ranking = self.ranking
        moved = np.bincount(self.threshold_of[excluded[self.pixels.region]], minlength=ranking.thresholds.size)
        moved_at_least = np.cumsum(moved[::-1])[::-1]
        return replace(
            self,
            ranking=Ranking(
                ranking.thresholds,
                ranking.positives - moved,
                ranking.at_least + moved_at_least,
                ranking.above + moved_at_least - moved,
                ranking.normals + int(moved.sum()),
            ),
        )

    def _share_from(self, start: int) -> NDArray[np.float64]:
        """Return for each region the share of its pixels that come at or after ``start``."""
        area = self.pixels.area
        return np.bincount(self.pixels.region[start:], minlength=area.size) / area


def rank_defects(reader: MapReader, masks: Sequence[NDArray[Any] | None] | NDArray[Any], workers: int) -> RankedDefects:
    """Run both passes over the images."""
    pixels = collect_defects(reader, masks, workers)
    thresholds, threshold_of = engine.distinct(pixels.scores)
    positives = np.bincount(threshold_of)
    ranking = engine.rank(reader, pixels.shapes, thresholds, positives, pixels.scores, pixels.sample, workers)
    return RankedDefects(pixels, threshold_of, ranking)
