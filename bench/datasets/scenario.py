"""One scenario: its images, its ground truth and its identity."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from bench.datasets.cache import Cache, default_cache_directory
from bench.errors import DataError
from results.record import Collection

MaskRule = Literal["decided", "nonzero", "half"]
"""Which values of a mask mark a defect: decided over all masks of a scenario; all but 0; from half the range on."""

_SHOWN = 3


@dataclass(frozen=True)
class TestImage:
    """One test image and where its ground truth lies.

    Attributes:
        name: ``test/<defect>/<stem>``, unique within the scenario.
        path: The image file.
        defect: Name of its folder; ``good`` for a normal image.
        anomalous: From the folder, never from the mask: a mask may be empty.
        masks: Its ground truth files. One file; in LOCO form one per defect region; none for a normal image, or where
            the ground truth is missing.
        saturation: The file that says how many pixels of a defect are enough (LOCO form); ``None`` where all count.
        condition: Light or view that it was taken under, such as ``overexposed``; empty if the collection has none.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    name: str
    path: Path
    defect: str
    anomalous: bool
    masks: tuple[Path, ...] = ()
    saturation: Path | None = None
    condition: str = ""

    @property
    def saturated(self) -> bool:
        """Its ground truth is in LOCO form: regions may overlap and have saturation thresholds."""
        return self.saturation is not None


@dataclass(frozen=True)
class Scenario:
    """One data set of a collection, read from file names alone: no image has been opened.

    Attributes:
        collection: What it belongs to.
        name: Its folder.
        train: Normal images to fit on, the validation images included where the scenario has no own ones.
        validation: Its own normal validation images (MVTec LOCO), else empty.
        test: All test images.
        saturation: The file with the saturation thresholds of its defects (LOCO form); ``None`` without any.
        note: What every table must say of it; ``None`` if nothing.
        layout: Dotted name of the module that has read it from its folder; empty if none has.
        mask_rule: Which values of its masks mark a defect.
        unlabelled: Images of a test set whose labels only its owner has (MVTec AD 2).
        notes: What became of files, one sentence each.
        problems: What must be mended before it can be used, one phrase each.
        folder: What the names in the fingerprints are relative to.
        cache: Where file digests are remembered.
    """

    collection: Collection
    name: str
    train: tuple[Path, ...]
    validation: tuple[Path, ...]
    test: tuple[TestImage, ...]
    saturation: Path | None = None
    note: str | None = None
    layout: str = ""
    mask_rule: MaskRule = "decided"
    unlabelled: tuple[TestImage, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    folder: Path = field(default=Path(), compare=False)
    cache: Cache = field(default_factory=lambda: Cache(default_cache_directory()), compare=False, repr=False)

    @property
    def id(self) -> str:
        """``collection/name``."""
        return f"{self.collection.name}/{self.name}"

    @property
    def saturated(self) -> bool:
        """The ground truth is in LOCO form: regions may overlap and have saturation thresholds."""
        return self.saturation is not None

    @property
    def pixel_labels(self) -> bool:
        """Some anomalous test image has ground truth; where none has, the labels are of whole images."""
        return any(image.masks for image in self.test)

    @property
    def names(self) -> list[str]:
        """Of the test images, in their order."""
        return [image.name for image in self.test]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the relative names and the contents of all images and ground truth, 64 hexadecimal digits.

        Raises:
            DataError: A file cannot be read.
        """
        return _sha256(sorted(f"{self._relative(path)}\0{digest}\n" for path, digest in self._digests))

    @cached_property
    def train_fingerprint(self) -> str:
        """SHA-256 over what a detector is fitted and calibrated on, in this order: names, contents and which is which.

        Raises:
            DataError: A file of the scenario cannot be read.
        """
        return self._fingerprint_of(
            [*(("train", path) for path in self.train), *(("validation", path) for path in self.validation)]
        )

    @cached_property
    def test_fingerprint(self) -> str:
        """SHA-256 over the test images and their ground truth, in this order: names, contents and what belongs to what.

        Raises:
            DataError: A file of the scenario cannot be read.
        """
        files = [
            (f"{image.name}\0{image.defect}\0{image.anomalous}", path)
            for image in self.test
            for path in (image.path, *image.masks)
        ]
        return self._fingerprint_of([*files, *([("saturation", self.saturation)] if self.saturation else [])])

    @property
    def identity(self) -> str:
        """What names what has been found out about all its images: short for both fingerprints, 64 digits.

        Raises:
            DataError: A file of the scenario cannot be read.
        """
        return self.train_fingerprint[:32] + self.test_fingerprint[:32]

    def _fingerprint_of(self, files: Sequence[tuple[str, Path]]) -> str:
        """SHA-256 over the relative names and contents of files, each with what it is to the scenario."""
        digests = dict(self._digests)
        return _sha256(f"{role}\0{self._relative(path)}\0{digests[path]}\n" for role, path in files)

    def _relative(self, path: Path) -> str:
        return composed(Path(os.path.relpath(path, self.folder)).as_posix())

    @cached_property
    def _digests(self) -> list[tuple[Path, str]]:
        """Every file with the SHA-256 of its content."""
        files = [*self.train, *self.validation]
        for image in self.test:
            files += [image.path, *image.masks]
        if self.saturation is not None:
            files.append(self.saturation)
        return list(zip(files, self.cache.digests(files), strict=True))

    def check(self) -> None:
        """Make sure, from the file names, that a detector can be fitted on this scenario and evaluated.

        Raises:
            DataError: Files must be mended, there are too few images, masks are missing, or images share a name.
        """
        self._check_files()
        if not self.train and not self.test:
            raise self._error("has no images", self._left_out("train/good, test/<defect> and ground_truth/<defect>"))
        needed = 1 if self.validation else 2
        if len(self.train) < needed:
            why = "" if self.validation else "; one at least is held out for validation"
            raise self._error(f"has {_images(len(self.train))} to fit on", f"at least {needed} needed{why}")
        self.check_test()

    def check_test(self) -> None:
        """Make sure, from the file names, that anomaly maps of the test images can be evaluated.

        Test images of one kind only, and labels without pixels, will do: the metrics that they leave undefined say so.

        Raises:
            DataError: Files must be mended, there are no test images, masks are missing, or images share a name.
        """
        self._check_files()
        if not self.test:
            raise self._error("has no test images", self._left_out("test/good and test/<defect>"))
        for name, count in Counter(image.name for image in self.test).items():
            if count > 1:
                raise self._error(f"has {count} test images named {name}", "rename them, and their masks alike")
        anomalous = [image for image in self.test if image.anomalous]
        without = [image for image in anomalous if not image.masks]
        if without and self.pixel_labels:
            raise self._error(
                f"has no ground truth for {_images(len(without))} of {len(anomalous)} anomalous, such as "
                f"{without[0].name}",
                f"expected {expected_mask(without[0])}; without any ground truth, images are evaluated and pixels not",
            )

    def _left_out(self, expected: str) -> str:
        return "; ".join(self.notes[:_SHOWN]) if self.notes else f"expected {expected}"

    def _check_files(self) -> None:
        if self.problems:
            more = f"; and {len(self.problems) - _SHOWN} more" if len(self.problems) > _SHOWN else ""
            raise self._error(f"must be mended: {'; '.join(self.problems[:_SHOWN])}{more}", "restore or remove them")

    def _error(self, what: str, remedy: str) -> DataError:
        return DataError(f"scenario {self.id} {what} ({self.folder}): {remedy}")


def composed(name: str) -> str:
    """A name in Unicode's composed form: file systems disagree on how a letter with an accent is written."""
    return unicodedata.normalize("NFC", name)


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def expected_mask(image: TestImage, truth: str = "ground_truth") -> str:
    """Where the ground truth of an anomalous image belongs, relative to the scenario's folder."""
    suffix = "/000.png" if image.saturated else "_mask.png"
    return f"{truth}/{image.defect}/{image.path.stem}{suffix}"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
