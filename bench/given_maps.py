"""Anomaly maps that something else computed, in the layout of the official evaluation codes.

::

    <maps>/<scenario>/test/<defect>/<stem>.tiff               (or .tif, .npy, .npz with one array)
    <maps>/<collection>/<scenario>/test/<defect>/<stem>.tiff  (where two collections have a scenario of one name)
    <scenario's maps>/scores.csv                              (optional: image,score)

A collection may be called by its own name or as its folder under the data root is.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.datasets.cache import Cache, usable_cores
from bench.datasets.catalogue import published_name
from bench.datasets.scenario import Scenario, TestImage, composed
from bench.datasets.tables import read_table
from bench.errors import DataError

SUFFIXES = (".tiff", ".tif", ".npy", ".npz")
SCORES_FILE = "scores.csv"
_SHOWN = 3
_MIN_IS_WHITE, _PALETTE = 0, 3  # of the tag PhotometricInterpretation
_NUMPY_MARKS = (b"\x93N", b"PK")
"""How .npy and .npz files begin."""


@dataclass(frozen=True)
class MapFolder:
    """The maps of one scenario: a file for each of its test images.

    Attributes:
        folder: Of the scenario's maps.
        files: In the order of the scenario's test images.
        ignored: Map files that belong to no test image, in sub-folders too.
    """

    folder: Path
    files: tuple[Path, ...]
    ignored: tuple[Path, ...]

    @property
    def note(self) -> str | None:
        """What a record says of the ignored files; ``None`` if there are none."""
        if not self.ignored:
            return None
        some = self.ignored[0].relative_to(self.folder).as_posix()
        if len(self.ignored) == 1:
            return f"1 map belongs to no test image and is left out: {some}"
        return f"{len(self.ignored)} maps belong to no test image and are left out, such as {some}"

    def digest(self, cache: Cache) -> str:
        """SHA-256 over the names and contents of the maps and of the image scores, if there are any.

        Raises:
            DataError: A file cannot be read.
        """
        scores = self.folder / SCORES_FILE
        files = [*self.files, *([scores] if scores.is_file() else [])]
        names = [file.relative_to(self.folder).as_posix() for file in files]
        lines = sorted(f"{name}\0{digest}\n" for name, digest in zip(names, cache.digests(files), strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def folders_of(scenario: Scenario, maps: Path) -> list[Path]:
    """The folders under ``maps`` that may hold a scenario's maps, those that name the collection first."""
    above = scenario.folder.parent
    collections = (
        scenario.collection.name,
        published_name(scenario.collection.name),
        above.name,
        f"{above.parent.name}/{above.name}",
    )
    candidates = [f"{collection}/{scenario.name}" for collection in collections] + [scenario.name]
    found = (_below(maps, candidate) for candidate in dict.fromkeys(map(composed, candidates)))
    return [folder for folder in found if folder is not None and (folder / "test").is_dir()]


def _below(folder: Path, name: str) -> Path | None:
    """A folder below another by its composed name, however the disk writes it; ``None`` if there is none."""
    for part in name.split("/"):
        if not folder.is_dir():
            return None
        matching = [entry for entry in sorted(folder.iterdir()) if composed(entry.name) == part]
        if not matching:
            return None
        folder = matching[0]
    return folder


def find_maps(scenario: Scenario, folder: Path) -> MapFolder:
    """Find the map of every test image.

    Raises:
        DataError: Some have none, or more than one; names the first.
    """
    by_place: dict[str, list[Path]] = {}
    for file in sorted((folder / "test").rglob("*")):
        if file.suffix.lower() in SUFFIXES and not file.name.startswith("."):
            by_place.setdefault(composed(file.relative_to(folder).with_suffix("").as_posix()), []).append(file)
    files = []
    missing: list[TestImage] = []
    for image in scenario.test:
        found = by_place.pop(image.name, [])
        if len(found) > 1:
            raise DataError(f"{image.name} of {scenario.id} has {len(found)} maps: {', '.join(map(str, found))}")
        files += found
        missing += [] if found else [image]
    if missing:
        names = ", ".join(image.name for image in missing[:_SHOWN])
        close = get_close_matches(missing[0].name, by_place, n=1)
        hint = f"; there is {close[0]}, which no test image is called" if close else ""
        raise DataError(
            f"{len(missing)} of {len(scenario.test)} test images of {scenario.id} have no anomaly map in {folder}: "
            f"{names}{', …' if len(missing) > _SHOWN else ''}{hint}\n"
            f"  Expected {folder / missing[0].name}.tiff, .tif, .npy or .npz"
        )
    return MapFolder(folder, tuple(files), tuple(file for rest in by_place.values() for file in rest))


def read_map(file: Path) -> NDArray[Any]:
    """Read one anomaly map: (h, w) float16, float32 or float64; integers of at most 16 bits become float32, exactly.

    Raises:
        DataError: The file is damaged, or holds something else.
    """
    try:
        array = _read(file)
    except Exception as error:  # whatever the readers of three formats make of a damaged file
        raise DataError(f"cannot read the anomaly map {file}: {error or type(error).__name__}") from error
    if array.ndim == 3 and (array.shape[0] == 1) != (array.shape[-1] == 1):  # of both, nobody knows which is no side
        array = array.squeeze(0 if array.shape[0] == 1 else -1)
    if array.dtype.kind in "iub" and array.dtype.itemsize <= 2:
        array = array.astype(np.float32)
    if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8 or array.size == 0:
        raise DataError(
            f"the anomaly map {file} holds {array.dtype} of shape {array.shape}; expected one (height, width) array of "
            "float16, float32 or float64, or of integers of at most 16 bits"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _read(file: Path) -> NDArray[Any]:
    if file.suffix.lower() in (".tiff", ".tif"):
        return _read_tiff(file)
    with file.open("rb") as opened:
        if opened.read(2) not in _NUMPY_MARKS:
            raise ValueError("it is neither .npy nor .npz, whatever its name: save it with numpy.save")
        opened.seek(0)
        try:
            loaded = np.load(opened, allow_pickle=False)
            if not isinstance(loaded, np.ndarray):
                return _only_array(loaded)
        except ValueError as error:
            if "allow_pickle" not in str(error):  # which advises to run whatever the file contains
                raise
            raise ValueError("it holds Python objects, which are never loaded: save an array of numbers") from error
        if opened.read(1):
            raise ValueError("something follows its array, as if several were saved into one file: one is expected")
        return loaded


def _only_array(archive: Any) -> NDArray[Any]:
    """The array of an .npz file.

    Raises:
        ValueError: It holds none, or several.
    """
    if len(archive.files) != 1:
        raise ValueError(f"it holds {len(archive.files)} arrays ({', '.join(archive.files)}), one is expected")
    return np.asarray(archive[archive.files[0]])


def _read_tiff(file: Path) -> NDArray[Any]:
    """Read a TIFF file's values as they are stored, with tifffile or, where that lacks a compression, with Pillow.

    Raises:
        ValueError: It has several pages, or a tag by which viewers and libraries show other values or places.
    """
    import tifffile

    with tifffile.TiffFile(file) as opened:
        if len(opened.pages) > 1:
            raise ValueError(f"it has {len(opened.pages)} pages, one is expected")
        page = opened.pages[0]
        _refuse_disputed(page)
        try:
            return np.asarray(opened.asarray())
        except (ImportError, KeyError, ValueError) as error:  # what tifffile raises differs from codec to codec
            if not isinstance(error, ImportError) and "imagecodecs" not in str(error):
                raise
            # Pillow swaps the bytes of big-endian floats twice where libtiff decodes: other numbers, and no error.
            swapped = opened.byteorder == ">" and page.dtype.kind == "f"
            array = None if swapped else _read_with_pillow(file)
            if array is None or (array.shape, array.dtype.newbyteorder("=")) != (page.shape, page.dtype):
                compression = getattr(page.compression, "name", page.compression)
                raise ValueError(
                    f"{'big-endian ' if swapped else ''}{page.dtype} values with the compression {compression} need a "
                    "package that is not installed: pip install imagecodecs, or write the maps without compression"
                ) from error
            return array


def _refuse_disputed(page: Any) -> None:
    """Refuse what one library obeys and another does not, so that a map would mean two things."""
    if page.photometric == _PALETTE:
        raise ValueError("it has a palette, whose indices are no scores: write the scores themselves")
    if page.photometric == _MIN_IS_WHITE:
        raise ValueError("its tag PhotometricInterpretation says that low values are white: write it as MinIsBlack")
    orientation = page.tags.valueof("Orientation", 1)
    if orientation != 1:
        raise ValueError(f"its tag Orientation is {orientation}: write the map upright, without the tag or with 1")


def _read_with_pillow(file: Path) -> NDArray[Any] | None:
    """The array that Pillow makes of a file; ``None`` if it can make none."""
    try:
        with Image.open(file) as image:
            return np.asarray(image)
    except (OSError, ValueError):
        return None


def read_scores(maps: MapFolder, scenario: Scenario) -> NDArray[np.float64] | None:
    """Read the image scores from ``scores.csv`` beside the maps: columns ``image`` and ``score``; ``None`` without.

    An image may be called with its suffix and with backslashes.

    Raises:
        DataError: The file is no such table, a test image is missing, unknown or repeated, or a score is not finite.
    """
    path = maps.folder / SCORES_FILE
    if not path.is_file():
        return None
    names = [image.name for image in scenario.test]
    known = set(names)
    of_files = {f"{image.name}{image.path.suffix}": image.name for image in scenario.test}
    scores: dict[str, float] = {}
    for row in read_table(path, ("image", "score")).rows:
        name = composed(row.text("image"))
        if name not in known:
            name = name.replace("\\", "/")
            name = of_files.get(name, name)
        if name in scores:
            raise row.error("image", f"{name} has two scores")
        try:
            scores[name] = row.number("score")
        except DataError as error:
            raise DataError(f"{error}, of {name}") from error
    if known != set(scores):
        different = sorted(known ^ set(scores))
        raise DataError(
            f"{path} should have a score for each of the {len(names)} test images of {scenario.id} and no other; "
            f"different: {', '.join(different[:_SHOWN])}{', …' if len(different) > _SHOWN else ''}"
        )
    return np.array([scores[name] for name in names])


def scan(
    files: Sequence[Path], images: Sequence[Path], sizes: Sequence[tuple[int, int]], *, upsample: bool
) -> NDArray[np.float64]:
    """Read every map once: check its size, and return the maximum of each, float64 (n,).

    Args:
        files: The maps.
        images: The image of each.
        sizes: Height and width of each image.
        upsample: Take maps of another size than their image for maps at the network's resolution.

    Raises:
        DataError: A map is damaged, of its image's height and width exchanged, or of another size than its image
            although ``upsample`` is not set.
    """

    def highest(index: int) -> float:
        array = read_map(files[index])
        if array.shape == sizes[index][::-1] != sizes[index]:
            raise DataError(
                f"the anomaly map {files[index]} has {_by(array.shape)} pixels (height × width), and its image "
                f"{images[index]} {_by(sizes[index])}: height and width are exchanged\n"
                "  Save maps as (height, width) of the image as its viewer sees it, turned by its EXIF orientation."
            )
        if array.shape != sizes[index] and not upsample:
            raise DataError(
                f"the anomaly map {files[index]} has {_by(array.shape)} pixels, its image {images[index]} has "
                f"{_by(sizes[index])} (height × width)\n"
                "  Pass --upsample if maps are of the whole image at the network's resolution. Maps of a crop cannot "
                "be evaluated: their method did not look at the rest."
            )
        return float(array.max())

    with ThreadPoolExecutor(usable_cores()) as pool:
        return np.array(list(pool.map(highest, range(len(files)))))


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
