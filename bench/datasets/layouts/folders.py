"""Layouts in which folders say everything: the split, the label and the kind of defect.

::

    <collection>/<scenario>/<train>/<normal>/*
                            <validation>/<normal>/*
                            <test>/<normal>/*   <test>/<defect>/*
                            <truth>/<defect>/<stem>_mask.png         (or <stem>.png, or another image format)
                            <truth>/<defect>/<stem>/000.png …        (one file a region: MVTec LOCO)
                            defects_config.json                      (MVTec LOCO)
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.datasets.accounting import entries, first_image, images_in, is_file, is_folder, is_image, unreachable
from bench.datasets.cache import Cache
from bench.datasets.catalogue import known_by_folder
from bench.datasets.layouts.assembling import GOOD, Found, assemble
from bench.datasets.scenario import Scenario, TestImage, composed, expected_mask
from bench.errors import DataError

DEFECTS_CONFIG = "defects_config.json"
"""LOCO form: which pixel value of a mask means which defect, and the defect's saturation threshold."""

Masks = dict[str, tuple[Path, ...]]
"""Ground truth files by the stem of their image, in Unicode's composed form."""


@dataclass(frozen=True)
class FolderLayout:
    """A layout like that of MVTec AD.

    Attributes:
        module: Dotted name of the module that describes it.
        title: What messages call it.
        train: Folder of the training images' folders.
        validation: Folder of the validation images' folders.
        test: Folder of the test images' folders.
        truth: Folder of the ground truth's folders.
        normal: What the folders of normal images are called.
        mask_suffix: What a mask's stem may have more than its image's.
        unlabelled: Folders of images whose labels only their owner has.
        condition: What in an image's stem names the light or view it was taken under, as the group of this name.
        within: Folder of the collection that holds the scenarios; empty for the collection's own.
        by_truth_alone: Whether anomalous test images with ground truth make a scenario, without any normal image.
    """

    module: str
    title: str
    train: str = "train"
    validation: str = "validation"
    test: str = "test"
    truth: str = "ground_truth"
    normal: str = "good"
    mask_suffix: str = "_mask"
    unlabelled: tuple[str, ...] = ()
    condition: re.Pattern[str] | None = None
    within: str = ""
    by_truth_alone: bool = False

    @property
    def name(self) -> str:
        """Of its module in this package."""
        return self.module.rpartition(".")[2]

    def scenarios(self, collection: Path) -> list[str]:
        """Name the scenarios in a collection's folder.

        A collection has a scenario with test images. Its other folders count as scenarios, if broken ones, when they
        have ``train`` or ``test``, bear the name of a published scenario, are empty or may not be looked into: leaving
        them out silently would turn a failed download into a smaller average.
        """
        folders = [folder for folder in entries(collection / self.within) if is_folder(folder)]
        if not any(self._is_scenario(folder) for folder in folders):
            return []
        known = known_by_folder(collection)
        published = known.images if known else {}
        return [
            folder.name
            for folder in folders
            if is_folder(folder / self.train)
            or is_folder(folder / self.test)
            or folder.name in published
            or _shows_nothing(folder)
        ]

    def read(self, collection: Path, scenario: str, cache: Cache) -> Scenario:
        """List the images of one scenario; see :class:`bench.datasets.layouts.layout.Layout`."""
        folder = collection / self.within / scenario
        saturation = folder / DEFECTS_CONFIG if is_file(folder / DEFECTS_CONFIG) else None
        reading = _Reading(self, folder, saturation)
        test = tuple(image for place in reading.test_folders() for image in reading.test_images(place))
        found = Found(
            folder=folder,
            train=images_in(folder / self.train / self.normal),
            validation=images_in(folder / self.validation / self.normal),
            test=test,
            saturation=saturation,
            unlabelled=tuple(image for place in self.unlabelled for image in reading.unlabelled_images(folder / place)),
            set_aside=tuple(reading.spoken_of),
            notes=tuple(reading.notes),
            problems=(*reading.problems, *reading.foreign_masks(test)),
        )
        return assemble(found, collection, scenario, self.module, cache)

    def _is_scenario(self, folder: Path) -> bool:
        """Whether a folder is one beyond doubt; one with test images alone can be evaluated."""
        test = folder / self.test
        if not is_folder(test):
            return False
        normal = is_folder(folder / self.train / self.normal) or is_folder(test / self.normal)
        return normal or (self.by_truth_alone and is_folder(folder / self.truth))


def _shows_nothing(folder: Path) -> bool:
    """Whether a folder is empty, holds nothing but links to nothing, or may not be looked into."""
    try:
        return all(map(unreachable, entries(folder)))
    except DataError:
        return True


@dataclass
class _Reading:
    """One scenario while it is read."""

    layout: FolderLayout
    folder: Path
    saturation: Path | None
    spoken_of: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def test_folders(self) -> list[Path]:
        """The folders of test images, by name: normal ones and each kind of defect."""
        truth = self.folder / self.layout.truth
        return [place for place in entries(self.folder / self.layout.test) if is_folder(place) and place != truth]

    def test_images(self, place: Path) -> list[TestImage]:
        """The test images in a folder, with their ground truth."""
        anomalous = place.name != self.layout.normal
        truth = self.folder / self.layout.truth / place.name
        masks = self._masks(truth)
        images = images_in(place)
        read = [
            TestImage(
                name=f"test/{composed(place.name)}/{composed(path.stem)}",
                path=path,
                defect=composed(place.name) if anomalous else GOOD,
                anomalous=anomalous,
                masks=masks.pop(composed(path.stem), ()) if anomalous else (),
                saturation=self.saturation,
                condition=self._condition(path),
            )
            for path in images
        ]
        self._note_left(masks, truth, anomalous=anomalous)
        return read

    def unlabelled_images(self, place: Path) -> list[TestImage]:
        """The images of a private test set, in its folder itself."""
        return [
            TestImage(f"{place.name}/{composed(path.stem)}", path, "", False, condition=self._condition(path))
            for path in images_in(place)
        ]

    def _condition(self, path: Path) -> str:
        match = self.layout.condition.search(path.stem) if self.layout.condition else None
        return match["condition"] if match else ""

    def _masks(self, truth: Path) -> Masks:
        candidates: dict[str, list[Path]] = defaultdict(list)
        for entry in entries(truth):
            if is_folder(entry) or is_image(entry):
                stem = entry.name if is_folder(entry) else entry.stem.removesuffix(self.layout.mask_suffix)
                candidates[composed(stem)].append(entry)
        masks: Masks = {}
        for stem, found in candidates.items():
            if len(found) > 1:
                names = " and ".join(entry.relative_to(self.folder).as_posix() for entry in found)
                self.problems.append(f"{names} could each be the ground truth of {truth.name}/{stem}")
                self.spoken_of += found
            files = [file for entry in found for file in (images_in(entry) if is_folder(entry) else (entry,))]
            if files:
                masks[stem] = tuple(files)
        return masks

    def foreign_masks(self, test: Sequence[TestImage]) -> list[str]:
        """What to mend where there are masks and none is of a test image: nobody meant labels without pixels."""
        anomalous = [image for image in test if image.anomalous]
        if not anomalous or any(image.masks for image in anomalous):
            return []
        truth = self.folder / self.layout.truth
        places = [place for place in entries(truth) if place.name != self.layout.normal]
        masks = (place if is_image(place) else first_image(place) for place in places)
        example = next((mask for mask in masks if mask is not None), None)
        if example is None:
            return []
        return [
            f"no mask in {self.layout.truth}, such as {example.relative_to(self.folder).as_posix()}, is of a test "
            f"image: expected {expected_mask(anomalous[0], self.layout.truth)}"
        ]

    def _note_left(self, masks: Masks, truth: Path, *, anomalous: bool) -> None:
        """Speak of the masks that no anomalous image has taken."""
        files = [file for left in masks.values() for file in left]
        if not files:
            return
        self.spoken_of += files
        why = "belonging to no test image" if anomalous else "of normal images"
        example = files[0].relative_to(self.folder).as_posix()
        self.notes.append(f"{len(files)} mask{'s' if len(files) > 1 else ''} {why} left out, such as {example}")
