"""Where the anomaly maps of an evaluation come from: a folder, the maps that a run kept, or the models that it kept."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bench.cell import calibrate, calibrated_on, held_out_images, image_name, predict
from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
from bench.datasets.pixels import image_size
from bench.datasets.scenario import Scenario
from bench.errors import DataError
from bench.given_calibration import calibration_files, digest_with, given_calibration
from bench.given_maps import find_maps, read_map, read_scores, scan
from bench.machine.devices import Slot
from bench.machine.environment import environment
from bench.models import load_detector, read_description
from bench.recording import Fields
from bench.scoring import AnomalyMaps, OnDemand
from bench.thresholding import NONE_HELD_OUT, Calibration, Uncalibrated
from methods.registry import load_method
from results.arrays import read_maps, read_normal_maps
from results.record import MapsSource, Record

ELSEWHERE = "anomaly maps computed elsewhere"

Sizes = Sequence[tuple[int, int]]
"""Height and width of each test image on disk."""

_OF_THE_FIT = frozenset(
    {
        "fit_key",
        "method",
        "title",
        "source",
        "seed",
        "config",
        "preset",
        "deviations",
        "precision",
        "tf32",
        "implementation",
        "weights",
        "photographs",
        "train_scale",
        "training_steps",
        "losses",
        "data",
        "model",
        "environment",
    }
)
"""Fields of a record that hold whatever its maps are worth."""


@dataclass(frozen=True, eq=False)
class LoadedMaps:
    """Maps of one scenario, to be evaluated.

    Attributes:
        maps: The maps and image scores.
        source: Identity of the maps.
        calibration: Maps of normal images that thresholds are chosen on, or why there are none.
        notes: What the record says of files that were left out.
    """

    maps: AnomalyMaps
    source: MapsSource
    calibration: Calibration | Uncalibrated
    notes: tuple[str, ...] = ()


class MapOrigin(Protocol):
    """Where the maps of one scenario come from."""

    @property
    def scenario(self) -> Scenario:
        """Whose test images they are of."""

    @property
    def fields(self) -> Fields:
        """Of the record, what does not depend on the maps."""

    @property
    def record_key(self) -> str | None:
        """Of the record that they, or their model, were kept with; ``None`` if something else made them."""

    def load(self, sizes: Sizes) -> LoadedMaps:
        """Read or make the maps.

        Raises:
            DataError: They are missing or damaged, or are not of these images.
            MethodError: A kept model cannot be used.
            ResultError: The arrays of a run are damaged.
        """


@dataclass(frozen=True, eq=False)
class FolderOrigin:
    """Maps in files, made by anything.

    Attributes:
        scenario: Whose test images they are of.
        fields: Of the record.
        folder: Of the scenario's maps.
        upsample: Take maps of another size than their image for maps at the network's resolution.
        cache: Where digests of files are remembered.
        say: Is told, in one line, what the user should know.
    """

    scenario: Scenario
    fields: Fields
    folder: Path
    upsample: bool
    cache: Cache
    say: Callable[[str], None]
    record_key: None = None

    def load(self, sizes: Sizes) -> LoadedMaps:
        """Find and check the files; each is read when its map is asked for."""
        maps = find_maps(self.scenario, self.folder)
        if maps.note:
            self.say(f"{self.folder}: {maps.note}")
        images = [image.path for image in self.scenario.test]
        highest = scan(maps.files, images, sizes, upsample=self.upsample)
        scores = read_scores(maps, self.scenario)
        return LoadedMaps(
            AnomalyMaps(
                OnDemand(len(maps.files), lambda index: read_map(maps.files[index])),
                highest if scores is None else scores,
            ),
            MapsSource(sha256=digest_with(maps.digest(self.cache), calibration_files(self.folder), self.cache)),
            given_calibration(self.scenario, self.folder, upsample=self.upsample, scores_given=scores is not None),
            notes=(maps.note,) if maps.note else (),
        )


@dataclass(frozen=True, eq=False)
class KeptMapsOrigin:
    """Maps that a cell of a run kept beside its record.

    Attributes:
        scenario: Whose test images they are of.
        record: The cell's record.
        directory: The cell's folder.
    """

    scenario: Scenario
    record: Record
    directory: Path

    @property
    def fields(self) -> Fields:
        """Those of the cell's record that its maps do not change."""
        return _fields_of_fit(self.record)

    @property
    def record_key(self) -> str:
        """Of the cell."""
        return self.record.key

    def load(self, sizes: Sizes) -> LoadedMaps:
        """Read the arrays."""
        kept = read_maps(self.directory)
        names = self.scenario.names
        if set(names) != set(kept):
            raise _other_files(self.scenario, "maps", self.directory)
        _check_files(self.scenario, self.record, "maps", self.directory)
        scores = {image.name: image.score for image in self.record.images}
        return LoadedMaps(
            AnomalyMaps([kept[name] for name in names], np.array([scores[name] for name in names])),
            MapsSource(sha256=_digest(kept), record=self.record.key),
            _kept_calibration(self.scenario, self.record, self.directory),
        )


@dataclass(frozen=True, eq=False)
class KeptModelOrigin:
    """Maps that the fitted detector of a cell, kept beside its record, predicts again.

    Attributes:
        scenario: Whose test images they are of.
        record: The cell's record.
        directory: The cell's folder.
        slot: Where it predicts.
        cache: Where decoded images are kept.
    """

    scenario: Scenario
    record: Record
    directory: Path
    slot: Slot
    cache: Cache

    @property
    def fields(self) -> Fields:
        """Those of the cell's record that its maps do not change, and where and by what they are predicted."""
        how = {**self.record.implementation, "maps": f"predicted again by the kept model of {self.record.key[:12]}"}
        return {
            **_fields_of_fit(self.record),
            "implementation": how,
            "environment": environment(self.slot, load_method(self.record.method).packages),
        }

    @property
    def record_key(self) -> str:
        """Of the cell."""
        return self.record.key

    def load(self, sizes: Sizes) -> LoadedMaps:
        """Restore the detector and predict."""
        if read_description(self.directory).sha256 != self.record.model:
            raise DataError(f"the model in {self.directory} is not the one that its record speaks of")
        _check_files(self.scenario, self.record, "model", self.directory)
        detector = load_detector(self.directory, self.slot.device)
        paths = [image.path for image in self.scenario.test]
        images = decode_images(paths, detector.input_size, self.cache, bits=bit_depth(self.scenario))
        held_out = self.record.data.validation if self.record.data else 0
        normal = held_out_images(self.scenario, held_out or 0, self.record.seed)
        tf32 = self.record.tf32
        with _threads(self.slot.threads):
            maps = predict(detector, self.scenario.names, images.pixels, lambda _: None, tf32=tf32)
            calibration = calibrate(detector, self.scenario, normal, self.cache, lambda _: None, tf32=tf32)
        digest = _digest(dict(zip(self.scenario.names, maps.maps, strict=True)))
        return LoadedMaps(maps, MapsSource(sha256=digest, record=self.record.key), calibration)


def _kept_calibration(scenario: Scenario, record: Record, directory: Path) -> Calibration | Uncalibrated:
    """The maps of normal images that a cell kept beside those of its test images."""
    kept = read_normal_maps(directory)
    if kept is None:
        any_held_out = scenario.validation or (record.data is not None and record.data.validation)
        return Uncalibrated("the cell has kept no maps of its validation images" if any_held_out else NONE_HELD_OUT)
    paths = {image_name(path): path for path in (*scenario.train, *scenario.validation)}
    return Calibration(
        names=list(kept.maps),
        maps=list(kept.maps.values()),
        scores=None if kept.scores is None else np.array(kept.scores),
        sizes=[image_size(paths[name]) for name in kept.maps],
        images_are=calibrated_on(scenario),
    )


def _fields_of_fit(record: Record) -> Fields:
    return {name: value for name, value in record if name in _OF_THE_FIT}


def _check_files(scenario: Scenario, record: Record, kind: str, directory: Path) -> None:
    if record.data is None or scenario.fingerprint != record.data.fingerprint:
        raise _other_files(scenario, kind, directory)


def _other_files(scenario: Scenario, kind: str, directory: Path) -> DataError:
    verb = "was" if kind == "model" else "were"
    return DataError(f"the files of {scenario.id} are not those that the {kind} in {directory} {verb} made for")


def _digest(maps: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over names, shapes, types and values."""
    digest = hashlib.sha256()
    for name in sorted(maps):
        digest.update(f"{name}\0{maps[name].shape}{maps[name].dtype}\0".encode() + maps[name].tobytes())
    return digest.hexdigest()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
