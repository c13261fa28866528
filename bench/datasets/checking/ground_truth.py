"""Masks against their images."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.datasets.cache import usable_cores
from bench.datasets.catalogue import KnownCollection
from bench.datasets.checking.finding import Finding, count, get_again, relative_names, some
from bench.datasets.checking.inspection import Inspected
from bench.datasets.masks import read_ground_truth
from bench.datasets.scenario import Scenario, expected_mask
from bench.errors import DataError


def missing_masks(scenario: Scenario, known: KnownCollection | None) -> Iterator[Finding]:
    """Find anomalous images without ground truth, where some have it or the catalogue promises it."""
    anomalous = [image for image in scenario.test if image.anomalous]
    without = [image for image in anomalous if not image.masks]
    if without and (len(without) < len(anomalous) or (known is not None and known.pixel_labels)):
        names = tuple(expected_mask(image) for image in without)
        yield Finding(
            "missing masks",
            f"{len(without)} of {len(anomalous)} anomalous images have no ground truth; expected {some(names)}",
            f"Was the ground truth unpacked too? {get_again(known)}" if known else "Add the masks.",
            files=names,
        )
    elif without:
        yield Finding("no masks", "image labels only: pixel metrics are undefined", problem=False)
    elif anomalous and known is not None and not known.pixel_labels:
        yield Finding("unexpected masks", f"{known.title} is published without masks, but here are some", problem=False)


def mask_contents(scenario: Scenario, inspected: Mapping[Path, Inspected]) -> Iterator[Finding]:
    """Find masks that are not of their image's size, whose values say nothing, or that mark nothing."""
    with_masks = [image for image in scenario.test if image.anomalous and image.masks]
    other = [mask for image in with_masks for mask in image.masks if _resized(inspected[mask], inspected[image.path])]
    if other:
        names = relative_names(scenario, other)
        yield Finding(
            "masks of another size",
            f"{count(other, 'mask')} not of the image's size: {some(names)}",
            "Ground truth is never resized: restore masks and images as they were published.",
            files=names,
        )
    unusable = {path for path, one in inspected.items() if one.error} | set(other)
    clear = (image for image in with_masks if image.saturated or len(image.masks) == 1)
    usable = tuple(image for image in clear if not unusable & {image.path, *image.masks})
    sizes = [size for image in usable if (size := inspected[image.path].size) is not None]
    try:
        truth = read_ground_truth(replace(scenario, test=usable), sizes)
    except DataError as error:
        yield Finding("masks without meaning", str(error), "Say it with --masks, here and at bench run.")
        return
    with ThreadPoolExecutor(usable_cores()) as pool:
        marked = list(pool.map(lambda place: bool(np.any(truth.mask(place))), range(len(usable))))
    empty = [image.path for image, marks in zip(usable, marked, strict=True) if not marks]
    if empty:
        names = relative_names(scenario, empty)
        text = f"{count(empty, 'anomalous image')} whose mask marks nothing: {some(names)}"
        yield Finding("empty masks", text, problem=False, files=names)


def _resized(mask: Inspected, image: Inspected) -> bool:
    return None not in (mask.size, image.size) and mask.size != image.size
