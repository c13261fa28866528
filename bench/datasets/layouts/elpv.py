"""ELPV as its owners publish it, in their repository or their Python package.

::

    <collection>/labels.csv                images/cell0001.png  1.0  mono
                 images/cell0001.png …     300 × 300, gray

A line holds an image, the probability of a defect that its annotators agreed on (0, 1/3, 2/3 or 1), and the kind of
its module: mono- or polycrystalline, a scenario each. There are labels of images only, no masks, and no split. The rule
here: a cell whose probability is above one half is anomalous, as ``defective`` (1) or ``probably_defective`` (2/3).
Of the cells with probability 0 four fifths train, drawn from a fixed seed; the others are tested, as are those with
1/3. Which module a cell was cut from is not published, so cells of one module may be on both sides.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bench.datasets.cache import Cache
from bench.datasets.layouts.assembling import Found, as_test_image, assemble
from bench.datasets.scenario import Scenario
from bench.errors import DataError

_SEED = 0
_TRAINED = 4 / 5
_LIST = "labels.csv"
_KINDS = ("mono", "poly")
_INSIDE = ("", "elpv_dataset/data", "src/elpv_dataset/data")
"""Where the list is in the owners' data, package and repository."""


@dataclass(frozen=True)
class _Cell:
    """A line of the list."""

    image: Path
    probability: float
    kind: str


class ELPV:
    """The layout."""

    title = "ELPV as published"
    name = "elpv"

    def scenarios(self, collection: Path) -> list[str]:
        """Mono- and polycrystalline cells, where there is a list of labels and its images; else empty."""
        return list(_KINDS) if _folder(collection) is not None else []

    def read(self, collection: Path, scenario: str, cache: Cache) -> Scenario:
        """List the cells of one kind.

        Raises:
            DataError: The list is missing or broken.
        """
        folder = _folder(collection)
        if folder is None:
            raise DataError(f"{collection} has no {_LIST} with its images: bench data get elpv")
        cells = _read_list(folder / _LIST)
        own = [cell for cell in cells if cell.kind == scenario]
        functional = sorted((cell.image for cell in own if cell.probability == 0), key=_drawn)
        train = functional[: int(len(functional) * _TRAINED)]
        known = set(train)
        found = Found(
            folder=folder,
            train=tuple(sorted(train)),
            test=tuple(as_test_image(cell.image, _defect(cell.probability)) for cell in own if cell.image not in known),
            set_aside=(folder / _LIST, *(cell.image for cell in cells if cell.kind != scenario)),
        )
        return assemble(found, collection, scenario, __name__, cache)


def _folder(collection: Path) -> Path | None:
    folders = (collection / inside for inside in _INSIDE)
    return next((path for path in folders if (path / _LIST).is_file() and (path / "images").is_dir()), None)


def _drawn(image: Path) -> str:
    """A random order that depends on the names alone, not on how many there are."""
    return hashlib.sha256(f"{_SEED}/{image.name}".encode()).hexdigest()


def _defect(probability: float) -> str | None:
    if probability < 0.5:
        return None
    return "defective" if probability == 1 else "probably_defective"


def _read_list(file: Path) -> list[_Cell]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    return [_read_line(file, number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]


def _read_line(file: Path, number: int, cells: list[str]) -> _Cell:
    if len(cells) != 3:
        raise DataError(
            f"cannot read {file}: line {number} has {len(cells)} columns, expected image, probability, kind"
        )
    try:
        probability = float(cells[1])
    except ValueError:
        probability = -1.0
    if not 0 <= probability <= 1:
        raise DataError(f"cannot read {file}: line {number}, column 2: {cells[1]!r} is no probability from 0 to 1")
    if cells[2] not in _KINDS:
        raise DataError(f"cannot read {file}: line {number}, column 3: {cells[2]!r} is neither {' nor '.join(_KINDS)}")
    return _Cell(file.parent / cells[0], probability, cells[2])


LAYOUT = ELPV()
