"""Real-IAD as its owners publish it.

::

    <collection>/realiad_1024/<scenario>/OK/S0001/<scenario>_0001_OK_C1_<time>.jpg
                                         NG/<defect>/S0001/<scenario>_0001_NG_<defect>_C1_<time>.jpg, and its mask .png
                 realiad_jsons/<scenario>.json    meta: prefix, normal_class; train and test: lists of anomaly_class,
                                                  image_path and mask_path (null without a visible defect)

The five cameras' views C1 to C5 are the condition of an image. A view of a defective object that has no mask shows no
defect and is a normal image. The rule: the split is the owners' for all views (``realiad_jsons``), else that for the
upper view alone (``realiad_jsons_sv``); the images are those with 1024 pixels, as in the owners' experiments, else 512,
256, or as photographed (``raw``). What else is there is named in a note.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.datasets.cache import Cache
from bench.datasets.layouts.assembling import Found, as_test_image, assemble, counted
from bench.datasets.scenario import Scenario
from bench.errors import DataError

_SPLITS = ("realiad_jsons", "realiad_jsons_sv")
_SIZES = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw")
_VIEW = re.compile(r"_(C\d)_")
_KEYS = ("anomaly_class", "image_path", "mask_path")


@dataclass(frozen=True)
class _Sample:
    """An entry of a split.

    Attributes:
        image: The image file.
        mask: Its mask; ``None`` where it shows no defect.
        defect: The owners' code of the kind of defect, such as ``AK`` for a pit; ``None`` for a normal image.
    """

    image: Path
    mask: Path | None
    defect: str | None


class RealIAD:
    """The layout."""

    title = "Real-IAD as published"
    name = "real_iad"

    def scenarios(self, collection: Path) -> list[str]:
        """What there are both images and a split of; empty where there are none."""
        splits, images = _splits(collection), _images(collection)
        if splits is None or images is None:
            return []
        return sorted(file.stem for file in splits.glob("*.json") if (images / file.stem).is_dir())

    def read(self, collection: Path, scenario: str, cache: Cache) -> Scenario:
        """List the images that the split names.

        Raises:
            DataError: The split is missing or broken.
        """
        splits, images = _splits(collection), _images(collection)
        if splits is None or images is None:
            raise DataError(f"{collection} has none of {', '.join(_SPLITS)} or none of {', '.join(_SIZES)}")
        file = splits / f"{scenario}.json"
        samples = {part: list(_samples(file, part, images)) for part in ("train", "test")}
        left_out = [sample for sample in samples["train"] if sample.defect is not None]
        found = Found(
            folder=images / scenario,
            train=tuple(sorted(sample.image for sample in samples["train"] if sample.defect is None)),
            test=tuple(
                as_test_image(sample.image, sample.defect, sample.mask, condition=_view(sample.image))
                for sample in samples["test"]
            ),
            set_aside=(
                *(path for sample in left_out for path in (sample.image, sample.mask) if path is not None),
                *((images / scenario).rglob("*.*") if splits.name != _SPLITS[0] else ()),
            ),
            notes=(
                *counted(len(left_out), "training image", "with a defect left out: only normal ones train"),
                *_choice(collection, images, splits),
            ),
        )
        return assemble(found, collection, scenario, __name__, cache)


def _splits(collection: Path) -> Path | None:
    """The folder with the splits; their archive holds a folder of its own name."""
    folders = (folder for name in _SPLITS for folder in (collection / name, collection / "realiad_jsons" / name))
    return next((folder for folder in folders if any(folder.glob("*.json"))), None)


def _images(collection: Path) -> Path | None:
    return next((collection / name for name in _SIZES if (collection / name).is_dir()), None)


def _choice(collection: Path, images: Path, splits: Path) -> Iterator[str]:
    """Which of several sizes and splits have been read."""
    sizes = [name for name in _SIZES if (collection / name).is_dir() and name != images.name]
    if sizes:
        yield f"images of {images.name}, not of {', '.join(sizes)}"
    if splits.name != _SPLITS[0]:
        yield f"the split of {splits.name}: one view of five"


def _view(image: Path) -> str:
    match = _VIEW.search(image.name)
    return match[1] if match else ""


def _samples(file: Path, part: str, images: Path) -> Iterator[_Sample]:
    document = _document(file)
    meta, entries = document.get("meta"), document.get(part)
    if not isinstance(meta, dict) or "normal_class" not in meta or not isinstance(entries, list):
        raise DataError(f"cannot read the split {file}: expected meta with normal_class, and the lists train and test")
    folder = images / str(meta.get("prefix", file.stem))
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or any(key not in entry for key in _KEYS):
            raise DataError(f"cannot read the split {file}: entry {number} of {part} lacks one of {', '.join(_KEYS)}")
        defect, mask = str(entry["anomaly_class"]), entry["mask_path"]
        anomalous = defect != meta["normal_class"] and mask is not None
        yield _Sample(
            image=folder / str(entry["image_path"]),
            mask=folder / str(mask) if anomalous else None,
            defect=defect if anomalous else None,
        )


def _document(file: Path) -> dict[str, object]:
    try:
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"cannot read the split {file}: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the split {file}: {error}") from error
    if not isinstance(document, dict):
        raise DataError(f"cannot read the split {file}: expected meta, train and test")
    return document


LAYOUT = RealIAD()
