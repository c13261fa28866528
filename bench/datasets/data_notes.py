"""What a record says of the files of a scenario, once somebody has looked into them."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from bench.datasets.bit_depth import bit_depth, count_brighter
from bench.datasets.cache import usable_cores
from bench.datasets.copies import find_copies
from bench.datasets.pixels import has_frames, has_more_channels, is_transparent, is_turned, read_image
from bench.datasets.scenario import Scenario

_VERSION = 3
"""Of the rules below; what was found by others is found again."""
_SHOWN = 3


@dataclass(frozen=True)
class DataNotes:
    """What is to be known of a scenario's images.

    Attributes:
        bits: Bits per channel in use where they are stored with 16; ``None`` where they have 8.
        notes: One sentence each.
        warning: What every table must say of the scenario; ``None`` if nothing.
    """

    bits: int | None
    notes: tuple[str, ...]
    warning: str | None


def take_notes(scenario: Scenario) -> DataNotes:
    """Look into the files of a scenario; remembered in its cache under its identity.

    Raises:
        DataError: An image is missing or damaged, or images differ in bit depth.
    """
    found = scenario.cache.remembered("notes", f"{scenario.identity}-{_VERSION}", lambda: asdict(_look(scenario)))
    return DataNotes(found["bits"], tuple(found["notes"]), found["warning"])


def _look(scenario: Scenario) -> DataNotes:
    seen, test = [*scenario.train, *scenario.validation], [image.path for image in scenario.test]
    bits = bit_depth(scenario)
    copies = find_copies(test, seen, scenario.cache, bits)
    notes = []
    for paths, kind in ((seen, "training"), (test, "test")):
        turned, transparent, extended, framed = _count(paths)
        # those of the images seen fit: the bits in use are chosen so
        brighter = count_brighter(paths, bits) if kind == "test" and bits is not None and bits < 16 else 0
        for number, what in (
            (turned, "turned as EXIF says"),
            (transparent, "with transparency, taken without it"),
            (extended, "with channels besides the colours, taken without them"),
            (framed, "with several frames, of which the first is taken"),
            (brighter, f"with values that take more than {bits} bits, which are white"),
        ):
            notes += [f"{_images(number, kind)} {what}"] if number else []
    warnings = []
    if copies.identical:
        warnings.append(f"{_images(len(copies.identical), 'test')} identical to training images")
    if copies.similar:
        warnings.append(f"{_images(len(copies.similar), 'test')} nearly identical to training images")
    for places in (copies.identical, copies.similar):
        notes += [f"{scenario.test[place].name} is a copy of a training image" for place in places[:_SHOWN]]
    return DataNotes(bits, tuple(notes), ", ".join(warnings) or None)


def _count(paths: Sequence[Path]) -> tuple[int, ...]:
    """How many images are turned by EXIF, are transparent somewhere, have more channels, and have several frames."""

    def ask(image: Image.Image) -> tuple[bool, bool, bool, bool]:
        return is_turned(image), is_transparent(image), has_more_channels(image), has_frames(image)

    with ThreadPoolExecutor(usable_cores()) as pool:
        answers = list(pool.map(lambda path: read_image(path, ask), paths))
    return tuple(sum(answer[kind] for answer in answers) for kind in range(4))


def _images(count: int, kind: str) -> str:
    return f"{count} {kind} image{'' if count == 1 else 's'}"
