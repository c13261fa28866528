"""Ground truth: masks and saturated defects at their image's original size, never resized.

What a mask's values mean is decided over all masks of a scenario, never guessed from one:

- 0 and one other value, whatever it is: that value marks the defects;
- gray from black to white, with values between from soft edges or from JPEG: the upper half marks them;
- several labels, as class numbers or colours: refused, unless a rule says which of them mark defects.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.datasets.cache import usable_cores
from bench.datasets.mask_values import FULL, Levels, MaskValues, listed_values, read_levels, values_of
from bench.datasets.pixels import read_image
from bench.datasets.scenario import Scenario, TestImage, expected_mask
from bench.errors import DataError
from metrics import Defect, saturation_pixels

_MOST = 0.5
"""Share of an image that no usual defect covers."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The ground truth of a scenario's test images, all of it read and checked once.

    Attributes:
        scenario: Whose test images.
        sizes: Height and width of each on disk.
        half: Whether a mask marks defects from half the range on; else by any value but 0.
        notes: What is to be known of the masks, one phrase each.
        warning: What every table must say of them; ``None`` if nothing.
    """

    scenario: Scenario
    sizes: Sequence[tuple[int, int]]
    half: bool = False
    notes: tuple[str, ...] = ()
    warning: str | None = None

    def mask(self, index: int) -> NDArray[np.bool_] | None:
        """Read the defect pixels of a test image.

        Returns:
            bool array of the image's size; ``None`` for a normal image. It may be empty on an anomalous one.

        Raises:
            DataError: The mask is missing, damaged or of another size.
        """
        image, size = self.scenario.test[index], self.sizes[index]
        if not image.anomalous:
            return None
        mask = np.zeros(size, dtype=np.bool_)
        for path in _masks_of(image):
            levels = _read(path, image, size)
            mask |= levels.upper_half if self.half else levels.nonzero
        return mask

    def defects(self, index: int) -> list[Defect]:
        """Read the defect regions of a test image in LOCO form; they may overlap.

        Saturations are as declared: one of no pixel, or of more than the region has, is for the evaluation to correct
        and to report.

        Returns:
            One defect per ground truth file that marks any pixel; empty for a normal image.

        Raises:
            DataError: The ground truth of an anomalous image is missing, damaged or of another size, or its pixel
                value is not in ``defects_config.json``.
        """
        image, size = self.scenario.test[index], self.sizes[index]
        if not image.anomalous:
            return []
        if image.saturation is None:
            raise ValueError(f"{image.name} has no saturation thresholds: its ground truth is one mask")
        rules = _saturation_rules(image.saturation)
        return [defect for path in _masks_of(image) if (defect := _defect(path, image, size, rules)) is not None]


def read_ground_truth(scenario: Scenario, sizes: Sequence[tuple[int, int]]) -> GroundTruth:
    """Read every mask of a scenario once, before a training of hours rather than after it, and decide what it means.

    Args:
        scenario: Whose test images' masks to read.
        sizes: Height and width of each test image on disk, upright.

    Raises:
        DataError: A mask is missing, damaged or of another size than its image, masks hold several labels, or all are
            darker than the half range that is to mark defects.
    """
    truth = GroundTruth(scenario, tuple(sizes), half=scenario.mask_rule == "half")
    if not scenario.pixel_labels:
        return truth
    if scenario.saturated:
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(truth.defects, range(len(scenario.test))))
        return truth
    files = [
        (path, image, size)
        for image, size in zip(scenario.test, sizes, strict=True)
        if image.anomalous
        for path in _masks_of(image)
    ]
    with ThreadPoolExecutor(usable_cores()) as pool:
        values = list(pool.map(lambda file: values_of(_read(*file)), files))
    half = truth.half
    if scenario.mask_rule == "decided":
        half = _is_gray(scenario, [path for path, *_ in files], values)
    elif half:
        _check_half(scenario, [path for path, *_ in files], values)
    notes = tuple(_notes(scenario, values, half=half))
    return replace(truth, half=half, notes=notes, warning=_inverted(values, half=half))


def _is_gray(scenario: Scenario, paths: Sequence[Path], values: Sequence[MaskValues]) -> bool:
    """Whether masks are gray from black to white; if not, they hold 0 and one value.

    Raises:
        DataError: They hold several labels.
    """
    together = frozenset().union(*(each.marking for each in values))
    if len(together) <= 1:
        return False
    if FULL in together and not any(each.are_labels for each in values):
        return True
    telling = max(range(len(values)), key=lambda index: (values[index].are_labels, len(values[index].marking)))
    raise DataError(
        f"the masks of scenario {scenario.id} hold several labels, and nothing says which mark a defect: "
        f"{paths[telling]} has {listed_values(values[telling].marking)}, all masks together {listed_values(together)}: "
        "pass --masks nonzero if every label but 0 is a defect, --masks half if those from half the range on are"
    )


def _check_half(scenario: Scenario, paths: Sequence[Path], values: Sequence[MaskValues]) -> None:
    """Make sure that some mask marks something, if values from half the range on do."""
    darkest = next((place for place, each in enumerate(values) if each.marking), None)
    if darkest is not None and not any(each.upper_half for each in values):
        raise DataError(
            f"no mask of scenario {scenario.id} reaches half the range, so none marks a defect: {paths[darkest]} has "
            f"{listed_values(values[darkest].marking)}: pass --masks nonzero if every value but 0 marks a defect"
        )


def _notes(scenario: Scenario, values: Sequence[MaskValues], *, half: bool) -> Iterator[str]:
    """What was chosen by the catalogue or the user, and what became of masks."""
    if scenario.mask_rule != "decided":
        yield f"every value {'from half the range on' if half else 'but 0'} of a mask marks a defect"
    for number, what in (
        (
            sum(each.soft for each in values) if half else 0,
            "with values between black and white, cut at half the range",
        ),
        (sum(each.turned for each in values), "turned as EXIF says"),
        (
            sum(not (each.upper_half if half else each.nonzero) for each in values),
            "empty, although the image is anomalous",
        ),
    ):
        if number:
            yield f"{number} mask{'' if number == 1 else 's'} {what}"


def _inverted(values: Sequence[MaskValues], *, half: bool) -> str | None:
    """A warning where every mask that marks something marks most of its image."""
    shares = [share for each in values if (share := each.upper_half if half else each.nonzero)]
    if not shares or min(shares) <= _MOST:
        return None
    return f"every mask marks more than {_MOST:.0%} of its image: are black and white exchanged?"


def _defect(path: Path, image: TestImage, size: tuple[int, int], rules: dict[int, tuple[float, bool]]) -> Defect | None:
    levels = _read(path, image, size)
    if levels.colours:
        raise DataError(f"mask {path} is coloured: expected gray values of {image.saturation}")
    values = [int(value) for value in np.unique(levels.values) if value]
    if not values:
        return None
    if len(values) > 1 or values[0] not in rules:
        raise DataError(
            f"mask {path} holds the values {_listed(values)}: expected 0 and one pixel value of "
            f"{image.saturation.name if image.saturation else 'none'} ({_listed(sorted(rules))})"
        )
    threshold, relative = rules[values[0]]
    mask = levels.nonzero
    return Defect(mask, saturation_pixels(int(mask.sum()), threshold, relative=relative))


def _masks_of(image: TestImage) -> tuple[Path, ...]:
    if not image.masks:
        raise DataError(f"no ground truth for {image.path}: expected {expected_mask(image)}")
    return image.masks


def _saturation_rules(config: Path) -> dict[int, tuple[float, bool]]:
    """Pixel value to saturation threshold and whether that is relative to the area."""
    try:
        defects = json.loads(config.read_text(encoding="utf-8-sig"))
        return {
            int(defect["pixel_value"]): (float(defect["saturation_threshold"]), bool(defect["relative_saturation"]))
            for defect in defects
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"cannot read saturation thresholds from {config} ({type(error).__name__}: {error}): expected a list of "
            f"objects with pixel_value, saturation_threshold and relative_saturation"
        ) from error


def _read(path: Path, image: TestImage, size: tuple[int, int]) -> Levels:
    levels = read_image(path, read_levels)
    if levels.values.shape != size:
        raise DataError(
            f"mask {path} has {_by(levels.values.shape)} pixels but image {image.path} has {_by(size)} (height × "
            f"width): ground truth is never resized, so both must agree"
        )
    return levels


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape)


def _listed(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values) or "none"
