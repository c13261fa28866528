"""The decoder ring: the same maps under the definitions of AU-PRO found in papers and public code.

Numbers called AU-PRO differ by definition as much as by method. Each function here is one definition, written from
its description, so that a reader sees which published number may be compared with which. None of these values
belongs in a table of results; only ``evaluate_pixels`` does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics import engine
from metrics.defects import collect_defects, rank_defects
from metrics.errors import MetricError
from metrics.inputs import FloatArray, MapReader, check_lengths, read_mask, worker_count
from metrics.maps import Subset, UpsampledMaps

Floats = NDArray[np.float64]
RESIZED = 256


@dataclass(frozen=True)
class _Case:
    """One set of maps and masks."""

    reader: MapReader
    masks: Sequence[NDArray[Any] | None] | NDArray[Any]
    workers: int


@dataclass(frozen=True)
class Definition:
    """One way to compute a number that is called AU-PRO.

    Attributes:
        name: short and unique.
        description: what it does, in a sentence.
        source: where it is found.
    """

    name: str
    description: str
    source: str
    _compute: Callable[[_Case], float]


@dataclass(frozen=True)
class DefinitionValue:
    """What one definition makes of a set of maps.

    Attributes:
        definition: which.
        value: nominally in [0, 1]; NaN where the definition gives nothing.
        deviation: from the exact value at the limit 0.3.
    """

    definition: Definition
    value: float
    deviation: float


def evaluate_definitions(
    maps: Sequence[NDArray[Any]] | NDArray[Any],
    masks: Sequence[NDArray[Any] | None] | NDArray[Any],
    which: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
) -> tuple[DefinitionValue, ...]:
    """Evaluate the same maps under each definition.

    Args:
        maps: as for ``evaluate_pixels``; read many times. The definitions by ranks hold all normal scores at once.
        masks: as for ``evaluate_pixels``.
        which: names of definitions; None for all of ``DEFINITIONS``.
        names: a name for each image, used in messages.
        threads: images processed at a time; None uses every core, at most 8.

    Raises:
        MetricError: as ``evaluate_pixels``, an unknown definition, or maps on which AU-PRO is undefined.
    """
    known = {definition.name: definition for definition in DEFINITIONS}
    for name in which or ():
        if name not in known:
            raise MetricError(f"there is no definition {name!r}; there are {', '.join(known)}")
    case = _Case(MapReader(maps, names), masks, worker_count(threads))
    check_lengths(case.reader, masks, "masks")
    ranked = rank_defects(case.reader, case.masks, case.workers)
    if ranked.undefined_reason:
        raise MetricError(f"AU-PRO is undefined under every definition: {ranked.undefined_reason}")
    exact = float(np.mean(ranked.region_au_pro(0.3)))
    chosen = [known[name] for name in which] if which is not None else DEFINITIONS
    values = [definition._compute(case) for definition in chosen]
    return tuple(
        DefinitionValue(definition, value, value - exact) for definition, value in zip(chosen, values, strict=True)
    )


def _exact(case: _Case, limit: float) -> float:
    ranked = rank_defects(case.reader, case.masks, case.workers)
    return float("nan") if ranked.undefined_reason else float(np.mean(ranked.region_au_pro(limit)))


def _curve(
    case: _Case, thresholds: FloatArray, *, inclusive: bool, overlap_of: MapReader | None = None
) -> tuple[Floats, Floats]:
    """Return FPR and mean region overlap at ascending distinct thresholds.

    Args:
        case: maps and masks.
        thresholds: (t,).
        inclusive: whether a pixel at the threshold is positive.
        overlap_of: the maps that the overlap is taken from, if not those that the FPR is taken from.
    """
    pixels = collect_defects(case.reader, case.masks, case.workers)
    nothing = np.zeros(thresholds.size, np.int64)
    ranking = engine.rank(case.reader, pixels.shapes, thresholds, nothing, pixels.scores, pixels.sample, case.workers)
    fpr = (ranking.at_least if inclusive else ranking.above) / ranking.normals
    if overlap_of is not None:
        pixels = collect_defects(overlap_of, case.masks, case.workers)
    weights = np.append(0.0, np.cumsum(1 / pixels.area[pixels.region]))
    below = weights[np.searchsorted(pixels.scores, thresholds, side="left" if inclusive else "right")]
    return fpr, (weights[-1] - below) / pixels.area.size


def _area(fpr: Floats, overlap: Floats, limit: float) -> float:
    """Return the trapezoid area from the first point up to the limit, where the overlap is interpolated."""
    order = np.argsort(fpr, kind="stable")
    x, y = fpr[order], overlap[order]
    inside = x < limit
    at_limit = np.interp(limit, x, y)
    x, y = np.append(x[inside], limit), np.append(y[inside], at_limit)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def _equidistant_ranks(case: _Case, thresholds: int) -> float:
    parts = []
    for index in range(len(case.masks)):
        mask = case.masks[index]
        scores = case.reader.read(index)
        parts.append(scores.reshape(-1) if mask is None else scores[~read_mask(mask, case.reader.label(index))])
    normal = np.sort(np.concatenate(parts))
    positions = np.linspace(0, normal.size - 1, thresholds).astype(np.int64)
    distinct, which = np.unique(normal[positions], return_inverse=True)
    _, overlap = _curve(case, distinct, inclusive=False)
    # The rate follows from the rank, even where equal scores make it differ from the rate at that score.
    fpr = 1 - (positions + 1) / normal.size
    return _area(fpr[::-1], overlap[which][::-1], 0.3) / 0.3


def _score_range(case: _Case) -> tuple[float, float]:
    ends = [(float(scores.min()), float(scores.max())) for scores in map(case.reader.read, range(len(case.masks)))]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _linear_thresholds(case: _Case, dilate: int = 0) -> float:
    low, high = _score_range(case)
    if low == high:
        return float("nan")
    thresholds = low + (high - low) / 200 * np.arange(200)
    overlap_of = replace(case.reader, maps=_Dilated(case.reader, dilate)) if dilate else None
    fpr, overlap = _curve(case, thresholds, inclusive=False, overlap_of=overlap_of)
    kept = fpr < 0.3
    fpr, overlap = fpr[kept][::-1], overlap[kept][::-1]
    if fpr.size < 2 or fpr[-1] == 0:
        return float("nan")
    return float(np.sum(np.diff(fpr / fpr[-1]) * (overlap[1:] + overlap[:-1]) / 2))


def _image_by_image(case: _Case) -> float:
    values = []
    for index in range(len(case.masks)):
        mask = case.masks[index]
        if mask is not None and read_mask(mask, case.reader.label(index)).any():
            alone = _Case(case.reader.subset([index]), Subset(case.masks, [index]), case.workers)
            full = read_mask(mask, case.reader.label(index)).all()
            values.append(float("nan") if full else _linear_thresholds(alone))
    return float(np.mean(values))


def _score_bins(case: _Case, bins: int) -> float:
    low, high = _score_range(case)
    if low == high:
        return float("nan")
    # In float32, as there: the curve begins elsewhere if rounding lifts the highest edge above the highest score.
    edges = np.linspace(0, 1, bins + 1, dtype=np.float32) * (np.float32(high) - np.float32(low)) + np.float32(low)
    fpr, overlap = _curve(case, np.unique(edges), inclusive=True)
    return _area(fpr[::-1], overlap[::-1], 0.3) / 0.3


def _anomalous_only(case: _Case) -> float:
    kept = [index for index in range(len(case.masks)) if case.masks[index] is not None]
    return _exact(_Case(case.reader.subset(kept), Subset(case.masks, kept), case.workers), 0.3)


def _resized(case: _Case, rule: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]) -> float:
    count = len(case.masks)
    masks = []
    for index in range(count):
        mask = case.masks[index]
        masks.append(None if mask is None else rule(read_mask(mask, case.reader.label(index))))
    maps = UpsampledMaps(_Read(case.reader, count), [(RESIZED, RESIZED)] * count)
    return _exact(_Case(replace(case.reader, maps=maps), masks, case.workers), 0.3)


def nearest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Take the mask pixel under the centre of each target pixel."""
    rows, columns = (((np.arange(RESIZED) + 0.5) * size / RESIZED).astype(np.int64) for size in mask.shape)
    return mask[np.ix_(rows, columns)]


def bilinear(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the share of defect under each target pixel, 0 to 255, as a mask of 8 bits is resized: rounded.

    The weights are a triangle as wide as the target pixel and more.
    """
    rows, columns = (_triangle_weights(size) for size in mask.shape)
    share = rows @ mask.astype(np.float64) @ columns.T
    # The tolerance absorbs the rounding of weights that sum to one.
    return np.floor(255 * share + (0.5 + 1e-9)).astype(np.uint8)


def _triangle_weights(size: int) -> Floats:
    scale = size / RESIZED
    centre = (np.arange(RESIZED) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centre[:, None]) / max(scale, 1.0)
    weights = np.clip(1 - distance, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def more_than_half(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep target pixels that are more than half defect."""
    return np.asarray(bilinear(mask) > 127)


def truncated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep target pixels that are defect through and through, as truncation to integers does."""
    return np.asarray(bilinear(mask) == 255)


def touched(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep target pixels that a defect touches."""
    return np.asarray(bilinear(mask) > 0)


class _Read(Sequence[FloatArray]):
    """The checked maps of a reader."""

    def __init__(self, reader: MapReader, count: int) -> None:
        self._reader = reader
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._reader.read(index)


class _Dilated(Sequence[FloatArray]):
    """Maps whose thresholded form is the dilated thresholded form of others: their running maximum."""

    def __init__(self, reader: MapReader, size: int) -> None:
        self._reader = reader
        self._size = size

    def __len__(self) -> int:
        return len(self._reader.maps)

    def __getitem__(self, index: Any) -> Any:
        from scipy import ndimage

        return ndimage.maximum_filter(self._reader.read(index), size=self._size, mode="nearest")


MVTEC_AD = "Bergmann et al., IJCV 2021; evaluation code of MVTec AD"
DEFINITIONS = (
    Definition("exact@0.3", "every distinct score, up to FPR 0.3", MVTEC_AD + ", 2022", partial(_exact, limit=0.3)),
    Definition(
        "exact@0.05",
        "every distinct score, up to FPR 0.05",
        "the limit of MVTec LOCO (Bergmann et al., IJCV 2022) and MVTec AD 2 for AU-sPRO and AU-PRO",
        partial(_exact, limit=0.05),
    ),
    Definition(
        "no limit",
        "every distinct score, up to FPR 1",
        "evaluation code of MVTec AD with --pro_integration_limit 1; papers that name no limit",
        partial(_exact, limit=1.0),
    ),
    Definition(
        "100 ranks",
        "thresholds at 100 equidistant ranks of the normal scores, the FPR taken from the rank",
        "evaluation code of MVTec AD, 2021, as reused with its 100 thresholds (adeval.au_pro)",
        partial(_equidistant_ranks, thresholds=100),
    ),
    Definition(
        "5000 ranks",
        "the same with 5000 ranks",
        "evaluation code of MVTec AD, 2021, default of its command line",
        partial(_equidistant_ranks, thresholds=5000),
    ),
    Definition(
        "200 thresholds, rescaled",
        "200 linear thresholds; points at FPR < 0.3 kept, their FPR divided by its maximum, no interpolation",
        "compute_pro of RD4AD, copied into many repositories, on a whole test set",
        _linear_thresholds,
    ),
    Definition(
        "200 thresholds, image by image",
        "the same for each image with a defect alone, and the mean",
        "evaluation of RD4AD (test.py), which calls compute_pro for one image at a time",
        _image_by_image,
    ),
    Definition(
        "dilated prediction",
        "200 linear thresholds over the whole set, the prediction dilated by 5 × 5 for the overlap but not for the FPR",
        "compute_pro of SimpleNet",
        partial(_linear_thresholds, dilate=5),
    ),
    Definition(
        "anomalous images only",
        "every distinct score, up to FPR 0.3, the FPR over anomalous images",
        "the images that RD4AD's evaluation reads, here with exact thresholds",
        _anomalous_only,
    ),
    Definition(
        "256, nearest",
        "maps and masks resized to 256 × 256, masks by nearest neighbour",
        "data loaders of the public PaDiM and SPADE codes; anomalib (torchvision resizes masks so)",
        partial(_resized, rule=nearest),
    ),
    Definition(
        "256, half covered",
        "the same, masks bilinear (antialiased, 8 bits) and cut at one half",
        "RD4AD (gt > 0.5), Patch-SVDD (masks > 128)",
        partial(_resized, rule=more_than_half),
    ),
    Definition(
        "256, truncated",
        "the same, masks bilinear and truncated to integers: only fully covered pixels remain",
        "patchcore-inspection (.astype(int) of a resized mask)",
        partial(_resized, rule=truncated),
    ),
    Definition(
        "256, touched",
        "the same, masks bilinear and every pixel above zero kept",
        "data loaders that test the resized mask for > 0",
        partial(_resized, rule=touched),
    ),
    Definition(
        "1000 score bins",
        "thresholds at the edges of 1000 equally wide bins between the lowest and the highest score",
        "ADEval",
        partial(_score_bins, bins=1000),
    ),
)
