"""Maps of normal images that a method from elsewhere was not fitted on: thresholds are chosen on them.

They lie as the maps of the test images do, ``<scenario's maps>/validation/good/<stem>.tiff`` (or .tif, .npy, .npz).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bench.datasets.cache import Cache
from bench.datasets.pixels import image_size
from bench.datasets.scenario import Scenario
from bench.errors import DataError
from bench.given_maps import SUFFIXES, read_map, scan
from bench.scoring import OnDemand
from bench.thresholding import Calibration, Uncalibrated

FOLDER = Path("validation") / "good"


def given_calibration(
    scenario: Scenario, folder: Path, *, upsample: bool, scores_given: bool
) -> Calibration | Uncalibrated:
    """Find the maps of normal images beside those of the test images, and check them.

    Args:
        scenario: Whose images; the maps are of its validation images or, where it has none, of training images that
            the method was not fitted on.
        folder: Of the scenario's maps.
        upsample: Take maps of another size than their image for maps at the network's resolution.
        scores_given: Image scores are given in a file, so that maxima of maps say nothing of them.

    Raises:
        DataError: A map is damaged, of no such image, of another size, or one of several of an image.
    """
    files = calibration_files(folder)
    if not files:
        return Uncalibrated(f"no maps of normal images that the method was not fitted on, in {FOLDER.as_posix()}")
    images = [_image_of(file, scenario, files) for file in files]
    sizes = [image_size(image) for image in images]
    maxima = scan(files, images, sizes, upsample=upsample)
    maps: Sequence[NDArray[Any]] = OnDemand(len(files), lambda index: read_map(files[index]))
    which = "validation images of the scenario" if scenario.validation else "training images held out elsewhere"
    names = [(FOLDER / file.stem).as_posix() for file in files]
    return Calibration(names, maps, None if scores_given else maxima, sizes, which)


def calibration_files(folder: Path) -> list[Path]:
    """The map files of normal images in the folder of a scenario's maps, by name."""
    files = sorted((folder / FOLDER).glob("*"))
    return [file for file in files if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]


def digest_with(maps: str, files: Sequence[Path], cache: Cache) -> str:
    """SHA-256 over the digest of the test images' maps, and names and contents of these; the former if there are none.

    Raises:
        DataError: A file cannot be read.
    """
    if not files:
        return maps
    lines = [f"{file.name}\0{digest}\n" for file, digest in zip(files, cache.digests(files), strict=True)]
    return hashlib.sha256("".join([maps, *lines]).encode()).hexdigest()


def _image_of(file: Path, scenario: Scenario, files: Sequence[Path]) -> Path:
    own = scenario.validation or scenario.train
    images = [image for image in own if image.stem == file.stem]
    if len([other for other in files if other.stem == file.stem]) > 1:
        raise DataError(f"{FOLDER.as_posix()}/{file.stem} of {scenario.id} has several maps in {file.parent}")
    if len(images) != 1:
        what = "validation image" if scenario.validation else "training image"
        raise DataError(
            f"{file} is of no {what} of {scenario.id}\n"
            f"  Thresholds are chosen on maps of its {len(own)} {what}s, such as {own[0].stem if own else 'none'}."
        )
    return images[0]
