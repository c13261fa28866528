"""From the files that a layout has found to a scenario."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from bench.datasets.accounting import account_for
from bench.datasets.cache import Cache
from bench.datasets.catalogue import collection_of, completeness, counted_as, known_by_folder, known_by_layout
from bench.datasets.scenario import Scenario, TestImage, composed

GOOD = "good"
"""What tables and map folders call a normal test image's defect."""


@dataclass(frozen=True)
class Found:
    """The files of one scenario, and what they are.

    Attributes:
        folder: What holds them; every file in it is accounted for.
        train: Normal images to fit on.
        test: All test images.
        validation: Normal validation images of its own.
        saturation: The file with the saturation thresholds of its defects (LOCO form).
        unlabelled: Images of a test set whose labels only its owner has.
        set_aside: Files that are known and of no use here, such as label lists; said in ``notes`` where it matters.
        notes: What became of files.
        problems: What makes the scenario unusable until it is mended.
    """

    folder: Path
    train: tuple[Path, ...]
    test: tuple[TestImage, ...]
    validation: tuple[Path, ...] = ()
    saturation: Path | None = None
    unlabelled: tuple[TestImage, ...] = ()
    set_aside: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def assemble(found: Found, collection: Path, name: str, layout: str, cache: Cache) -> Scenario:
    """Make the scenario: its identity, its coverage and its mask rule come from the catalogue.

    Args:
        found: Its files.
        collection: The collection's folder.
        name: What the scenario is called.
        layout: Dotted name of the module that has found them.
        cache: Where file digests are remembered.
    """
    known = known_by_folder(collection) or known_by_layout(layout.rpartition(".")[2])
    identity = known.collection if known else collection_of(collection)
    images = (*found.test, *found.unlabelled)
    used = list(chain(found.train, found.validation, *((image.path, *image.masks) for image in images)))
    used += [found.saturation] if found.saturation else []
    account = account_for(found.folder, [*used, *found.set_aside])
    return Scenario(
        collection=counted_as(identity, name),
        name=composed(name),
        train=found.train,
        validation=found.validation,
        test=found.test,
        saturation=found.saturation,
        unlabelled=found.unlabelled,
        note=completeness(identity.name, name, found.train, found.test, found.validation),
        layout=layout,
        folder=found.folder,
        cache=cache,
        mask_rule=known.masks if known else "decided",
        notes=(*found.notes, *account.notes),
        problems=(*_missing(used), *found.problems, *account.problems),
    )


def as_test_image(
    path: Path, defect: str | None, mask: Path | None = None, *, stem: str | None = None, condition: str = ""
) -> TestImage:
    """A test image under its usual name.

    Args:
        path: The image file.
        defect: The kind of defect it shows; ``None`` for a normal image.
        mask: Its ground truth; dropped for a normal image.
        stem: What it is called within its defect, where its file's stem is not unique.
        condition: Light or view that it was taken under.
    """
    kind = GOOD if defect is None else defect
    return TestImage(
        name=composed(f"test/{kind}/{path.stem if stem is None else stem}"),
        path=path,
        defect=composed(kind),
        anomalous=defect is not None,
        masks=(mask,) if mask is not None and defect is not None else (),
        condition=condition,
    )


def counted(count: int, what: str, became: str) -> tuple[str, ...]:
    """A note of how many files of a kind something became of; none where there are no such files."""
    return (f"{count} {what}{'s' if count > 1 else ''} {became}",) if count else ()


def _missing(files: Iterable[Path]) -> tuple[str, ...]:
    """Files that a list speaks of and that are not there; of links that lead nowhere the account speaks."""
    return tuple(f"{file} is missing" for file in files if not file.is_file() and not file.is_symlink())
