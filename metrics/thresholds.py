"""Rules that choose a threshold from normal images alone, as one must in practice, and what each of them promises.

Everywhere, a score is called anomalous if it exceeds the threshold. The images are normal ones that the detector was
neither fitted nor tested on. Their maps are read one by one, a few times; nothing is held that is as large as all.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from metrics.errors import MetricError
from metrics.images import check_scores
from metrics.inputs import FloatArray, MapReader, check_lengths, share_out, worker_count

Level = Literal["image", "pixel"]
"""What is compared with a threshold: the scores of images, or those of pixels."""
RateOf = Literal["images", "pixels"]
"""What a false-positive rate is a share of."""

_DIGIT = 16
"""Bits of a score that are counted in one pass: of its key, as :func:`_keys` makes it, the highest first."""


class NormalImages:
    """Normal images that thresholds are chosen on.

    Args:
        scores: (n,) of the images; at least one.
        maps: n anomaly maps, float arrays (h_i, w_i), possibly made when read; ``None`` if no threshold on pixels is
            wanted.
        names: a name for each image, used in messages.
        threads: images processed at a time; None uses every core, at most 8.

    Raises:
        MetricError: there is no image, lengths differ, or a score is not finite.
    """

    def __init__(
        self,
        scores: Sequence[float] | NDArray[Any],
        maps: Sequence[NDArray[Any]] | NDArray[Any] | None = None,
        *,
        names: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> None:
        self.scores, _ = check_scores(scores, np.zeros(len(scores)), names, noun="normal image")
        if self.scores.size == 0:
            raise MetricError("no threshold can be chosen: there is no normal image")
        self._reader = None if maps is None else MapReader(maps, names)
        if self._reader is not None:
            check_lengths(self._reader, self.scores, "scores")
        self._threads = worker_count(threads)

    def __len__(self) -> int:
        return self.scores.size

    @property
    def maxima(self) -> NDArray[np.float64]:
        """(n,) the highest score of a pixel of each image."""
        return np.array([image.maximum for image in self._pixels])

    @property
    def pixel_count(self) -> int:
        """How many pixels the images have together."""
        return sum(image.count for image in self._pixels)

    def pixel_mean_and_deviation(self) -> tuple[float, float]:
        """Return mean and population standard deviation of all pixels, each weighing the same, in float64."""
        count, mean, squares = 0, 0.0, 0.0
        for image in self._pixels:
            # Chan, Golub and LeVeque 1983: sums of squares about the mean are added without cancellation.
            total = count + image.count
            apart = image.mean - mean
            squares += image.squares + apart * apart * count * image.count / total
            mean += apart * image.count / total
            count = total
        return mean, math.sqrt(squares / count)

    def pixel_exceeded_by(self, allowed: int) -> float:
        """Return the lowest score of a pixel that at most ``allowed`` of all pixels exceed, exactly.

        Counts the scores digit by digit, the highest digit first: two passes over float32 maps, four over float64.
        """
        bits = 64 if any(image.is_double for image in self._pixels) else 32
        prefix, rank = 0, allowed  # of the scores whose key begins with prefix, the one with this rank from above
        for shift in range(bits - _DIGIT, -1, -_DIGIT):
            counts = self._count_digits(prefix, shift, bits)
            at_least = np.cumsum(counts[::-1])
            place = int(np.searchsorted(at_least, rank, side="right"))
            rank -= int(at_least[place - 1]) if place else 0
            prefix = (prefix << _DIGIT) | (counts.size - 1 - place)
        return _score_of(prefix, bits)

    @cached_property
    def _pixels(self) -> list["_PixelStatistics"]:
        if self._reader is None:
            raise MetricError("no threshold on pixels can be chosen: the normal images have no anomaly maps")
        reader = self._reader
        gathered: dict[int, _PixelStatistics] = {}

        def gather(index: int) -> None:
            scores = reader.read(index)
            gathered[index] = _statistics(scores)
            if not math.isfinite(gathered[index].mean):
                reader.refuse(index)

        share_out(len(self), [gather] * self._threads)
        return [gathered[index] for index in range(len(self))]

    def _count_digits(self, prefix: int, shift: int, bits: int) -> NDArray[np.int64]:
        """Count, of the scores whose key begins with ``prefix``, each value of the digit after it."""
        assert self._reader is not None
        reader, lock = self._reader, threading.Lock()
        total = np.zeros(1 << _DIGIT, np.int64)

        def count(index: int) -> None:
            keys = _keys(reader.read(index), bits)
            if shift + _DIGIT < bits:
                keys = keys[keys >> (shift + _DIGIT) == prefix]
            counts = np.bincount(((keys >> shift) & (total.size - 1)).astype(np.int64), minlength=total.size)
            with lock:
                np.add(total, counts, out=total)

        share_out(len(self), [count] * self._threads)
        return total


@dataclass(frozen=True)
class _PixelStatistics:
    """Of the pixels of one image: count, mean, sum of squares about the mean, maximum, and whether they are float64."""

    count: int
    mean: float
    squares: float
    maximum: float
    is_double: bool


def _statistics(scores: FloatArray) -> _PixelStatistics:
    # What is not finite, or too large for its square to be, shows in the results.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(scores.mean(dtype=np.float64))
        apart = scores.astype(np.float64) - mean
        # The mean is rounded, so the sum about it is not quite zero.
        squares = float(np.sum(apart * apart) - apart.sum() ** 2 / apart.size)
    return _PixelStatistics(scores.size, mean, max(squares, 0.0), float(scores.max()), scores.dtype == np.float64)


def _keys(scores: FloatArray, bits: int) -> NDArray[np.unsignedinteger[Any]]:
    """Return unsigned integers that order as the scores do."""
    kind = np.dtype(f"u{bits // 8}")
    pattern: NDArray[Any] = np.ascontiguousarray(scores, f"f{bits // 8}").reshape(-1).view(kind)
    sign = kind.type(1 << (bits - 1))
    return np.where(pattern & sign, ~pattern, pattern | sign)


def _score_of(key: int, bits: int) -> float:
    """Return the score that has this key."""
    sign = 1 << (bits - 1)
    pattern = key ^ sign if key & sign else ~key & ((1 << bits) - 1)
    return float(np.array(pattern, f"u{bits // 8}").view(f"f{bits // 8}"))


class ThresholdRule(Protocol):
    """How a threshold is chosen on normal images."""

    @property
    def level(self) -> Level:
        """What is compared with the threshold."""

    @property
    def name(self) -> str:
        """Short, as in the names of metrics: ``image_f1@mean+3sd``."""

    @property
    def declared(self) -> float | None:
        """The false-positive rate that it promises not to exceed; ``None`` if it promises nothing."""

    @property
    def rate_of(self) -> RateOf:
        """What that rate is a share of."""

    def undefined_reason(self, images: int) -> str:
        """Why the rule chooses nothing on so many normal images, or an empty string."""

    def choose(self, normal: NormalImages) -> float:
        """Choose the threshold.

        Raises:
            MetricError: a score is not finite, or there are too few images for the rule.
        """


@dataclass(frozen=True)
class MeanPlusDeviations:
    """Mean plus some standard deviations of the normal scores; promises no rate, as scores have no known distribution.

    The deviation is the population's (divided by n). On pixels with a factor of 3 it is the rule in the public
    code of the owners of MVTec AD 2 (Heckler-Kram et al., The MVTec AD 2 Dataset, 2025), on maps of validation images.

    Attributes:
        level: what is compared with the threshold.
        factor: how many deviations.
    """

    level: Level
    factor: float = 3.0

    @property
    def name(self) -> str:
        """Such as ``mean+3sd``."""
        return f"mean+{self.factor:g}sd"

    @property
    def declared(self) -> None:
        """No rate."""
        return

    @property
    def rate_of(self) -> RateOf:
        """Images or pixels, as compared."""
        return "images" if self.level == "image" else "pixels"

    def undefined_reason(self, images: int) -> str:
        """Why nothing is chosen: without images."""
        return "" if images else "there is no normal image"

    def choose(self, normal: NormalImages) -> float:
        """Choose the threshold.

        Raises:
            MetricError: a score is not finite.
        """
        if self.level == "pixel":
            mean, deviation = normal.pixel_mean_and_deviation()
        else:
            mean, deviation = float(normal.scores.mean()), float(normal.scores.std())
        return mean + self.factor * deviation


@dataclass(frozen=True)
class DeclaredRate:
    """The lowest threshold that keeps a declared false-positive rate on the next normal image, on average.

    If the next image is drawn as the n normal ones were, in whatever order, the expected share of it that exceeds the
    threshold is at most the rate. For that, at most (rate · (n + 1) − 1) / n of the n images may exceed it, a little
    less than the rate itself: the ⌈(n + 1)(1 − rate)⌉-th lowest score (Vovk, Gammerman and Shafer 2005; for shares
    of pixels, Angelopoulos et al., Conformal Risk Control, ICLR 2024, whose images have equally many pixels). Fewer
    than 1 / rate − 1 images cannot support the rate.

    Attributes:
        level: what is compared with the threshold.
        rate: in (0, 1).
        rate_of: what it is a share of. With "images" at the pixel level an image counts as soon as one of its pixels
            exceeds the threshold, so the threshold is a quantile of the maxima of the maps.
    """

    level: Level
    rate: float = 0.05
    rate_of: RateOf = "images"

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise MetricError(f"a rate must lie in (0, 1), is {self.rate}")
        if self.level == "image" and self.rate_of == "pixels":
            raise MetricError("a threshold on the scores of images has a rate of images, not of pixels")

    @property
    def name(self) -> str:
        """Such as ``fpr0.05``; on pixels with a rate of images ``image_fpr0.05``."""
        return f"{'image_' if self.level == 'pixel' and self.rate_of == 'images' else ''}fpr{self.rate:g}"

    @property
    def declared(self) -> float:
        """The rate."""
        return self.rate

    def undefined_reason(self, images: int) -> str:
        """Why nothing is chosen: too few images to support the rate."""
        fewest = math.ceil(1 / self.rate - 1 - 1e-9)
        if images >= fewest:
            return ""
        counted = "1 normal image" if images == 1 else f"{images} normal images"
        return f"{counted} cannot support a rate of {self.rate:g}: at least {fewest} are needed"

    def choose(self, normal: NormalImages) -> float:
        """Choose the threshold.

        Raises:
            MetricError: a score is not finite, or there are too few images for the rate.
        """
        reason = self.undefined_reason(len(normal))
        if reason:
            raise MetricError(f"no threshold can be chosen: {reason}")
        if self.rate_of == "pixels":
            share = (self.rate * (len(normal) + 1) - 1) / len(normal)
            return normal.pixel_exceeded_by(_whole(share * normal.pixel_count))
        scores = normal.scores if self.level == "image" else normal.maxima
        return float(np.sort(scores)[len(normal) - _whole(self.rate * (len(normal) + 1))])


def _whole(number: float) -> int:
    """Round down, but take 6.999999999999999 for the 7 that is meant."""
    return math.floor(number + 1e-9)
