"""Which defects were found how well: kept beside a cell's record, one entry per defect region."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from results.beside import read_entries, write_entries

REGIONS_FILE = "regions.json"


class RegionResult(BaseModel):
    """One defect region, or in LOCO form one annotated defect.

    Attributes:
        image: The image's name in the record.
        defect: The type of its defects.
        area: Pixels.
        saturation: How many of them have to be found; ``None`` where all count.
        values: ``au_pro@L``, the region's own share of AU-PRO, and ``overlap@L``, the part of it found at the lowest
            threshold within the false-positive rate L; in LOCO form ``au_spro@L``. In [0, 1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    image: str
    defect: str
    area: int
    saturation: int | None = None
    values: dict[str, float]


def write_regions(directory: Path, regions: Sequence[RegionResult]) -> Path:
    """Write the regions of the cell whose folder is ``directory``.

    Raises:
        ResultError: The operating system refused.
    """
    return write_entries(directory / REGIONS_FILE, regions)


def read_regions(directory: Path) -> list[RegionResult]:
    """Read the regions of the cell whose folder is ``directory``; empty if it has none.

    Raises:
        ResultError: The file is damaged.
    """
    return read_entries(directory / REGIONS_FILE, RegionResult)
