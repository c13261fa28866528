"""Whether two methods differ on the same images: paired intervals by bootstrap, and permutation tests.

The images are resampled, and in the tests exchanged between the methods, in common for both. What a method was trained
on, and its seeds, are held as they are: the answer is about other test images, not about other trainings.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metrics.bootstrap import (
    CHUNK,
    Floats,
    Interval,
    PixelCounts,
    RankedScores,
    Seed,
    check_kinds,
    pixel_values,
    resample,
)
from metrics.errors import MetricError
from metrics.images import check_scores
from metrics.ranking import check_limits


def compare_images(
    first: ArrayLike,
    second: ArrayLike,
    kinds: Sequence[Any] | NDArray[Any],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: Seed = 0,
    names: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Return intervals for the differences ``first - second`` of the metrics of ``evaluate_images``.

    Args:
        first: (n,) image scores, finite, higher = more anomalous; or (s, n) of several trainings, whose metrics are
            averaged.
        second: likewise, of the same images; s may differ.
        kinds: (n,) 0 or False = normal. Any other number is a kind of anomalies: each kind is evaluated with all
            normal images, and the value is the mean over the kinds, as in MVTec LOCO.
        resamples: how many.
        level: of the interval, in (0, 1).
        seed: of the resampling.
        names: a name for each image, used in messages.

    Raises:
        MetricError: a score is not finite, or there are fewer than two images of a kind.
    """
    kind_of = np.asarray(kinds).astype(np.int64)
    left, right = (_ranked(_stack(scores, kind_of, names), kind_of) for scores in (first, second))

    def differences(weights: Floats) -> dict[str, Floats]:
        values, others = _mean_values(left, weights), _mean_values(right, weights)
        return {name: values[name] - others[name] for name in values}

    check_kinds(kind_of)
    return resample(differences, kind_of, resamples, level, seed)


def compare_regions(
    first: ArrayLike,
    second: ArrayLike,
    image: Sequence[Any] | NDArray[Any],
    kinds: Sequence[Any] | NDArray[Any] | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: Seed = 0,
) -> Interval:
    """Return the interval for the difference ``first - second`` of a mean over defect regions: AU-PRO or AU-sPRO.

    The images are resampled and their regions follow. Each region's share was computed at thresholds that the normal
    pixels of all images set; these are held as they are, which ``compare_pixels`` does not do.

    Args:
        first: (r,) each region's own share; or (s, r) of several trainings, which are averaged.
        second: likewise, of the same regions; s may differ.
        image: (r,) what tells the regions' images apart.
        kinds: (r,) the kind of anomalies of each region's image, of which the value is the mean; one if ``None``.
        resamples: how many.
        level: of the interval, in (0, 1).
        seed: of the resampling.

    Raises:
        MetricError: the shares are not of the same regions, or fewer than two images of a kind have any.
    """
    sums, counts, kind_of = _by_image(first, second, image, kinds)
    members = [kind_of == kind for kind in np.unique(kind_of)]

    def difference(weights: Floats) -> dict[str, Floats]:
        means = [weights[:, own] @ sums[own] / (weights[:, own] @ counts[own]) for own in members]
        return {"difference": np.mean(means, axis=0)}

    return resample(difference, kind_of, resamples, level, seed)["difference"]


def compare_pixels(
    first: PixelCounts,
    second: PixelCounts,
    fpr_limits: tuple[float, ...] = (0.05, 0.3, 1.0),
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: Seed = 0,
) -> dict[str, Interval]:
    """Return intervals for the differences ``first - second`` of two methods on the same images.

    Raises:
        MetricError: the counts are not of the same images.
    """
    same = (
        np.array_equal(first.anomalous, second.anomalous)
        and np.array_equal(first.normals, second.normals)
        and np.array_equal(first.region_image, second.region_image)
        and np.array_equal(first.region_area, second.region_area)
    )
    if not same:
        raise MetricError("a paired comparison needs both methods on the same images with the same masks")
    limits = check_limits(fpr_limits)

    def differences(weights: Floats) -> dict[str, Floats]:
        left, right = pixel_values(first, weights, limits), pixel_values(second, weights, limits)
        return {name: left[name] - right[name] for name in left}

    check_kinds(first.anomalous)
    return resample(differences, first.anomalous, resamples, level, seed)


def image_p_value(
    first: ArrayLike,
    second: ArrayLike,
    kinds: Sequence[Any] | NDArray[Any],
    *,
    resamples: int = 1000,
    seed: Seed = 0,
) -> float:
    """Return the two-sided p-value of the difference in image AU-ROC, by exchanging the methods image by image.

    If the methods do not differ, an image's rank among all scores of the one could as well be its rank among those of
    the other. All 2^n exchanges are made where these are fewer than ``resamples``.

    Args:
        first: as for ``compare_images``, but with as many trainings as ``second``, of which each is a pair.
        second: likewise.
        kinds: as for ``compare_images``.
        resamples: of the exchanges; no p-value is below 2 / (resamples + 1).
        seed: of the exchanges.

    Raises:
        MetricError: as ``compare_images``, or the numbers of trainings differ.

    Source:
        Bandos, Rockette and Gur, A permutation test sensitive to differences in areas for comparing ROC curves from a
        paired design, Statistics in Medicine 24, 2005.
    """
    from scipy import stats

    kind_of = np.asarray(kinds).astype(np.int64)
    left, right = (stats.rankdata(_stack(scores, kind_of, None), axis=-1) for scores in (first, second))
    if left.shape != right.shape:
        raise MetricError(f"trainings are exchanged in pairs, but there are {len(left)} and {len(right)}")
    check_kinds(kind_of)

    def difference(signs: Floats, axis: int) -> Floats:
        exchanged = signs[..., None, :] < 0
        mine, other = np.where(exchanged, right, left), np.where(exchanged, left, right)
        values: Floats = (_au_roc(mine, kind_of) - _au_roc(other, kind_of)).mean(axis=-1)
        return values

    return _sign_flips(np.ones(kind_of.size), difference, resamples, seed, CHUNK // left.size)


def region_p_value(
    first: ArrayLike,
    second: ArrayLike,
    image: Sequence[Any] | NDArray[Any],
    kinds: Sequence[Any] | NDArray[Any] | None = None,
    *,
    resamples: int = 1000,
    seed: Seed = 0,
) -> float:
    """Return the two-sided p-value of the difference in a mean over defect regions, by exchanging the methods.

    If the methods do not differ, what the regions of an image add to the difference could as well have the other sign
    (the regions of one image together, as they are not independent). All 2^n exchanges of the n images with regions
    are made where these are fewer than ``resamples``.

    Args:
        first: as for ``compare_regions``.
        second: likewise.
        image: likewise.
        kinds: likewise.
        resamples: of the exchanges; no p-value is below 2 / (resamples + 1).
        seed: of the exchanges.

    Raises:
        MetricError: the shares are not of the same regions.

    Source:
        Fisher, The Design of Experiments, 1935, section 21 (randomisation test of paired differences).
    """
    sums, counts, kind_of = _by_image(first, second, image, kinds)
    present, number = np.unique(kind_of, return_inverse=True)
    parts = sums / np.bincount(number, weights=counts)[number] / present.size
    return _sign_flips(parts, lambda signed, axis: signed.sum(axis=axis), resamples, seed, CHUNK // parts.size)


def _sign_flips(
    values: Floats, statistic: Callable[[Floats, int], Floats], resamples: int, seed: Seed, batch: int
) -> float:
    from scipy import stats

    outcome = stats.permutation_test(
        (values,),
        statistic,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, batch),
        rng=np.random.default_rng(seed),
    )
    return float(outcome.pvalue)


def _au_roc(scores: Floats, kinds: NDArray[np.int64]) -> Floats:
    """Return (...,) the mean over the kinds of anomalies of the AU-ROC of scores (..., n), ties counting half."""
    from scipy import stats

    values = []
    for kind in np.unique(kinds[kinds != 0]):
        anomalous = kinds == kind
        chosen = anomalous | (kinds == 0)
        ranks = stats.rankdata(scores[..., chosen], axis=-1)[..., anomalous[chosen]]
        found = np.count_nonzero(anomalous)
        values.append((ranks.mean(axis=-1) - (found + 1) / 2) / np.count_nonzero(kinds == 0))
    mean: Floats = np.mean(values, axis=0)
    return mean


def _stack(scores: ArrayLike, kinds: NDArray[np.int64], names: Sequence[str] | None) -> Floats:
    """Return scores as (trainings, n), all finite."""
    return np.stack([check_scores(training, kinds, names)[0] for training in np.atleast_2d(np.asarray(scores))])


def _ranked(scores: Floats, kinds: NDArray[np.int64]) -> list[tuple[NDArray[np.bool_], RankedScores]]:
    """Rank each training's scores (s, n), each kind of anomalies with the normal images; with the images that count."""
    parts = []
    for kind in np.unique(kinds[kinds != 0]):
        chosen = (kinds == kind) | (kinds == 0)
        parts += [(chosen, RankedScores(training[chosen], kinds[chosen] == kind)) for training in scores]
    return parts


def _mean_values(parts: list[tuple[NDArray[np.bool_], RankedScores]], weights: Floats) -> dict[str, Floats]:
    values = [ranked.values(weights[:, chosen]) for chosen, ranked in parts]
    return {name: np.mean([part[name] for part in values], axis=0) for name in values[0]}


def _by_image(
    first: ArrayLike, second: ArrayLike, image: Sequence[Any] | NDArray[Any], kinds: Sequence[Any] | NDArray[Any] | None
) -> tuple[Floats, NDArray[np.int64], NDArray[Any]]:
    """Return, for each image with regions, the sum of their differences, their number, and the kind of the image."""
    left, right = (np.atleast_2d(np.asarray(shares, np.float64)) for shares in (first, second))
    images, inverse, counts = np.unique(np.asarray(image), return_inverse=True, return_counts=True)
    if left.shape[1] != inverse.size or right.shape[1] != inverse.size:
        raise MetricError(
            f"a paired comparison needs both methods on the same regions: {left.shape[1]} and {right.shape[1]} shares "
            f"for {inverse.size} regions"
        )
    if inverse.size == 0:
        raise MetricError("there is no defect region to compare")
    differences = left.mean(axis=0) - right.mean(axis=0)
    sums = np.bincount(inverse, weights=differences, minlength=images.size).astype(np.float64)
    kind_of = np.zeros(images.size, np.int64)
    if kinds is not None:
        kind_of[inverse] = np.asarray(kinds)
    return sums, counts, kind_of
