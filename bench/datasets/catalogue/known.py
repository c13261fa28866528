"""What the catalogue holds of a published collection."""

from dataclasses import dataclass, field
from typing import Literal

from bench.datasets.scenario import MaskRule
from results.record import Collection

ValidationRule = Literal["own", "held out"]
"""Normal images to calibrate on: the scenario's own, or a part of its training images."""


@dataclass(frozen=True)
class PublishedImages:
    """What a complete copy of a scenario holds; ``None`` or empty where that is not known.

    Attributes:
        train: How many images a detector is fitted on, by the rules of the scenario's layout.
        validation: How many normal validation images of its own.
        test_normal: How many normal test images.
        test_anomalous: How many anomalous test images.
        defects: Anomalous test images of each kind of defect.
        sizes: Heights and widths in pixels that occur; empty too where there are too many to list.
    """

    train: int | None = None
    validation: int | None = None
    test_normal: int | None = None
    test_anomalous: int | None = None
    defects: dict[str, int] = field(default_factory=dict, hash=False)
    sizes: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        counted = sum(self.defects.values())
        if self.defects and counted != self.test_anomalous:
            raise ValueError(f"defects are {counted} images in all, test_anomalous says {self.test_anomalous}")


@dataclass(frozen=True)
class Archive:
    """A file that the owners let everybody download by a direct link.

    Attributes:
        url: The link.
        folder: The folder, within the collection's, that its content belongs into; empty for the collection's own.
        inside: The folder in the archive that holds what is wanted; empty for all of it.
        sha256: Of the file, 64 hexadecimal digits, where the owners or their package index give it.
        bytes: Its size, where known.
    """

    url: str
    folder: str = ""
    inside: str = ""
    sha256: str | None = None
    bytes: int | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith("https://"):
            raise ValueError(f"url {self.url!r} is no https:// link")
        if self.sha256 is not None and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            raise ValueError(f"sha256 {self.sha256!r} is not 64 hexadecimal digits in lower case")


@dataclass(frozen=True)
class KnownCollection:
    """A published collection.

    Attributes:
        name: Short name, for example ``mvtec_ad``.
        title: As tables print it.
        folders: What its folder is commonly called, in lower case, without anything but letters and digits.
        layout: Module of ``bench.datasets.layouts`` that reads it as published.
        images: Per scenario what a complete copy holds.
        citation: The paper to cite.
        page: Where its owners offer it.
        licence: In its owners' words; empty where it is not known.
        counted_from: Where the numbers of images come from.
        masks: What the values of its masks mean.
        validation: Where normal validation images come from.
        pixel_labels: Whether its anomalous images have masks.
        archives: What can be downloaded without asking; empty where the page must be visited.
        note: What else a user should know; empty if nothing.
    """

    name: str
    title: str
    folders: frozenset[str]
    layout: str
    images: dict[str, PublishedImages] = field(hash=False)
    citation: str
    page: str
    licence: str = ""
    counted_from: str = ""
    masks: MaskRule = "decided"
    validation: ValidationRule = "held out"
    pixel_labels: bool = True
    archives: tuple[Archive, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        unreachable = [name for name in self.folders if name != "".join(filter(str.isalnum, name.lower()))]
        if unreachable:
            raise ValueError(f"folders {unreachable} hold more than lower-case letters and digits: no folder is them")
        if not self.images:
            raise ValueError("images names no scenario")

    @property
    def collection(self) -> Collection:
        """Its identity in records."""
        return Collection(name=self.name, title=self.title, scenarios=len(self.images))
