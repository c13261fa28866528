"""What a scenario consists of: how many images of which size, how large its defects are, and what resizing costs."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bench.datasets.cache import map_in_batches, usable_cores
from bench.datasets.masks import GroundTruth, read_ground_truth
from bench.datasets.pixels import image_size
from bench.datasets.scenario import Scenario
from metrics.sizes import QUARTILES

RESAMPLINGS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}
"""How masks are commonly resized: with the latter, antialiased and then cut at half."""

_EIGHT_CONNECTED = np.ones((3, 3), np.bool_)


@dataclass(frozen=True)
class Shrinking:
    """What becomes of defect regions when masks are resized to a small square.

    Attributes:
        before: How many regions there are at full size.
        after: How many at the small size: neighbours may have become one, and one may have broken.
        vanished: How many of those at full size have no pixel left that is marked at the small size.
    """

    before: int = 0
    after: int = 0
    vanished: int = 0

    @property
    def reduction(self) -> float | None:
        """Share by which the number of regions falls, as papers state it; ``None`` without regions."""
        return 1 - self.after / self.before if self.before else None

    @property
    def vanished_share(self) -> float | None:
        """Share of the regions that vanish; ``None`` without regions."""
        return self.vanished / self.before if self.before else None

    def __add__(self, other: "Shrinking") -> "Shrinking":
        return Shrinking(self.before + other.before, self.after + other.after, self.vanished + other.vanished)


@dataclass(frozen=True)
class Defects:
    """The 8-connected defect regions of one test image.

    Attributes:
        image: Its name.
        defect: Its kind of defect.
        pixels: (r,) area of each region in pixels, in order of its first pixel.
        share: (r,) the same as a share of the image, in (0, 1].
        shrunk: Per resampling what becomes of them.
    """

    image: str
    defect: str
    pixels: NDArray[np.int64]
    share: NDArray[np.float64]
    shrunk: dict[str, Shrinking]


@dataclass(frozen=True)
class Statistics:
    """What one scenario consists of.

    Attributes:
        scenario: ``collection/name``.
        title: Of its collection.
        train: Number of training images.
        validation: Number of its own validation images.
        normal: Number of normal test images.
        anomalous: Number of anomalous test images.
        sizes: How many images have which height and width in pixels, the most frequent first.
        defects: Of each anomalous test image with ground truth.
        side: Height and width in pixels that masks are resized to.
    """

    scenario: str
    title: str
    train: int
    validation: int
    normal: int
    anomalous: int
    sizes: dict[tuple[int, int], int]
    defects: tuple[Defects, ...]
    side: int = 224

    @cached_property
    def pixels(self) -> NDArray[np.int64]:
        """(r,) area of every region in pixels."""
        return np.concatenate([image.pixels for image in self.defects] or [np.empty(0, np.int64)])

    @cached_property
    def shares(self) -> NDArray[np.float64]:
        """(r,) area of every region as a share of its image."""
        return np.concatenate([image.share for image in self.defects] or [np.empty(0)])

    @property
    def quartiles(self) -> tuple[float, ...]:
        """Shares of the image that a quarter, half, three quarters and all of the regions do not exceed."""
        return tuple(np.quantile(self.shares, QUARTILES).tolist()) if self.shares.size else ()

    def shrunk(self, resampling: str) -> Shrinking:
        """What becomes of all regions together."""
        return sum((image.shrunk[resampling] for image in self.defects), Shrinking())


def describe(scenario: Scenario, side: int = 224) -> Statistics:
    """Count a scenario: every image's header and every mask is read, on all cores, one mask at a time on each.

    Args:
        scenario: Of any layout; masks that overlap (LOCO form) count as one.
        side: Height and width in pixels that masks are resized to; papers use 224.

    Raises:
        DataError: An image or a mask is missing or damaged; names the file.
    """
    with_masks = tuple(image for image in scenario.test if image.anomalous and image.masks)
    paths = [*scenario.train, *scenario.validation, *(image.path for image in scenario.test)]
    sizes = dict(zip(paths, map_in_batches(image_size, paths), strict=True))
    truth = read_ground_truth(replace(scenario, test=with_masks), [sizes[image.path] for image in with_masks])
    with ThreadPoolExecutor(usable_cores()) as pool:
        defects = tuple(pool.map(partial(_defects, truth, side=side), range(len(with_masks))))
    anomalous = sum(image.anomalous for image in scenario.test)
    return Statistics(
        scenario=scenario.id,
        title=scenario.collection.title,
        train=len(scenario.train),
        validation=len(scenario.validation),
        normal=len(scenario.test) - anomalous,
        anomalous=anomalous,
        sizes=dict(Counter(sizes.values()).most_common()),
        defects=defects,
        side=side,
    )


def _defects(truth: GroundTruth, place: int, side: int) -> Defects:
    image, mask = truth.scenario.test[place], truth.mask(place)
    assert mask is not None, "an anomalous image has a mask"
    labels, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
    pixels = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.int64)
    shrunk = {name: _shrunk(mask, labels, count, side, resampling) for name, resampling in RESAMPLINGS.items()}
    return Defects(image.name, image.defect, pixels, pixels / mask.size, shrunk)


def _shrunk(
    mask: NDArray[np.bool_], labels: NDArray[np.int32], count: int, side: int, resampling: Image.Resampling
) -> Shrinking:
    """Resize a mask, and find the regions of which no pixel lies in a marked pixel of the small one."""
    small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), resampling)) >= 128
    rows, columns = (np.arange(length) * side // length for length in mask.shape)
    left = np.unique(labels[small[np.ix_(rows, columns)]])
    _, after = ndimage.label(small, structure=_EIGHT_CONNECTED)
    return Shrinking(count, after, count - int(np.count_nonzero(left)))
