"""What given thresholds do on test images: F1, false-positive rate and recall, of images and of pixels.

Everywhere, a score is called anomalous if it exceeds the threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics.errors import MetricError
from metrics.inputs import FloatArray, MapReader, check_lengths, read_mask, share_out, worker_count

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Decisions:
    """What it is worth to call some of the images, or pixels, anomalous; in [0, 1], or NaN with a reason.

    Attributes:
        f1: 2TP / (2TP + FP + FN).
        false_positive_rate: the share of the normal ones that are called anomalous.
        recall: the share of the anomalous ones that are.
        undefined: the reason for each value that is NaN: ``f1``, ``fpr`` or ``recall``.
    """

    f1: float
    false_positive_rate: float
    recall: float
    undefined: Mapping[str, str] = field(default_factory=dict)

    def named(self) -> dict[str, float]:
        """Return the values by what they are called in the names of metrics."""
        return {"f1": self.f1, "fpr": self.false_positive_rate, "recall": self.recall}


def decide(called: NDArray[np.bool_], anomalous: NDArray[np.bool_]) -> Decisions:
    """Evaluate which images are called anomalous.

    Args:
        called: (n,) true = called anomalous.
        anomalous: (n,) true = anomalous.
    """
    true, false = int(np.sum(called & anomalous)), int(np.sum(called & ~anomalous))
    return _decisions(
        true,
        int(anomalous.sum()),
        false,
        false,
        int((~anomalous).sum()),
        ("no image is anomalous", "no image is normal"),
    )


@dataclass(frozen=True)
class ExceedingPixels:
    """How many pixels of each test image exceed each of some thresholds.

    Attributes:
        defect: (t, n) how many of its defect pixels.
        normal: (t, n) how many of its other pixels.
        defect_pixels: (n,) how many defect pixels it has.
        normal_pixels: (n,) how many others.
    """

    defect: Counts
    normal: Counts
    defect_pixels: Counts
    normal_pixels: Counts

    def subset(self, positions: NDArray[np.intp]) -> "ExceedingPixels":
        """Return the counts of the images at these positions."""
        return ExceedingPixels(
            self.defect[:, positions],
            self.normal[:, positions],
            self.defect_pixels[positions],
            self.normal_pixels[positions],
        )

    def images(self, threshold: int) -> NDArray[np.bool_]:
        """Return (n,) which images have any pixel above a threshold, which is given by its place."""
        return np.asarray(self.defect[threshold] + self.normal[threshold] > 0)

    def decide(self, threshold: int, anomalous: NDArray[np.bool_]) -> Decisions:
        """Evaluate which pixels are called anomalous.

        F1 and recall are of the pixels of all images together; the false-positive rate is that of normal images, whose
        pixels are normal beyond doubt.

        Args:
            threshold: its place.
            anomalous: (n,) which images are.
        """
        defect, normal = self.defect[threshold], self.normal[threshold]
        return _decisions(
            int(defect.sum()),
            int(self.defect_pixels.sum()),
            int(normal.sum()),
            int(normal[~anomalous].sum()),
            int(self.normal_pixels[~anomalous].sum()),
            ("no mask marks a defect pixel", "no image is normal"),
        )


def count_exceeding(
    maps: Sequence[NDArray[Any]] | NDArray[Any],
    masks: Sequence[NDArray[Any] | None] | NDArray[Any] | None,
    thresholds: Sequence[float],
    *,
    names: Sequence[str] | None = None,
    threads: int | None = None,
) -> ExceedingPixels:
    """Count the pixels above thresholds, reading each map once.

    Args:
        maps: n float arrays (h_i, w_i), possibly made when read.
        masks: n arrays of the shape of their map, nonzero = defect, or None for a normal image; None if no defect is
            marked anywhere, so that all pixels count among the others.
        thresholds: t of them.
        names: a name for each image, used in messages.
        threads: images processed at a time; None uses every core, at most 8.

    Raises:
        MetricError: lengths, shapes or scores that allow no evaluation; names the image.
    """
    reader = MapReader(maps, names)
    check_lengths(reader, maps if masks is None else masks, "masks")
    defect, normal = np.zeros((2, len(thresholds), len(maps)), np.int64)
    defect_pixels, normal_pixels = np.zeros((2, len(maps)), np.int64)

    def count(index: int) -> None:
        given = None if masks is None else masks[index]
        mask = None if given is None else read_mask(given, reader.label(index))
        scores = reader.read(index, None if mask is None else mask.shape)
        if not np.isfinite(scores).all():
            reader.refuse(index)
        defect_pixels[index] = 0 if mask is None else np.count_nonzero(mask)
        normal_pixels[index] = scores.size - defect_pixels[index]
        for place, threshold in enumerate(thresholds):
            above = exceeds(scores, threshold)
            inside = 0 if mask is None else np.count_nonzero(above & mask)
            defect[place, index] = inside
            normal[place, index] = np.count_nonzero(above) - inside

    share_out(len(maps), [count] * worker_count(threads))
    return ExceedingPixels(defect, normal, defect_pixels, normal_pixels)


def exceeds(scores: FloatArray, threshold: float) -> NDArray[np.bool_]:
    """Tell which scores exceed a threshold that their type may not be able to hold.

    Raises:
        MetricError: the threshold is not finite.
    """
    if not np.isfinite(threshold):
        raise MetricError(f"a threshold must be finite, is {threshold}")
    with np.errstate(over="ignore"):  # beyond the type's range: the next lower value is its largest
        cut = np.array(threshold).astype(scores.dtype)
    if float(cut) > threshold:  # rounded up: the next lower one separates the scores alike
        cut = np.nextafter(cut, np.array(-np.inf, scores.dtype))
    return np.asarray(scores > cut)


def _decisions(
    true: int, positives: int, false: int, false_in_normal: int, normals: int, reasons: tuple[str, str]
) -> Decisions:
    """Make the values of counts; the reasons are for there being no positive and no normal one."""
    nan = float("nan")
    undefined = {} if positives else {"f1": reasons[0], "recall": reasons[0]}
    undefined |= {} if normals else {"fpr": reasons[1]}
    return Decisions(
        f1=2 * true / (true + false + positives) if positives else nan,
        false_positive_rate=false_in_normal / normals if normals else nan,
        recall=true / positives if positives else nan,
        undefined=undefined,
    )
