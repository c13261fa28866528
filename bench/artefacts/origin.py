"""Anomaly maps that an exported detector predicts, to be evaluated like any others."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bench.artefacts.description import ArtefactDescription
from bench.artefacts.running import Artefact
from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
from bench.datasets.scenario import Scenario
from bench.machine.devices import Slot, usable_cores
from bench.machine.environment import environment
from bench.map_origins import LoadedMaps, Sizes
from bench.recording import Fields
from bench.thresholding import Uncalibrated
from results.record import MapsSource

_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True, eq=False)
class ArtefactOrigin:
    """Maps that an exported detector makes of the test images of a scenario.

    Attributes:
        scenario: Whose test images.
        artefact: The detector.
        path: Its file.
        cache: Where decoded images are kept.
    """

    scenario: Scenario
    artefact: Artefact
    path: Path
    cache: Cache
    record_key: None = None

    @property
    def fields(self) -> Fields:
        """Of the record: what the artefact says of itself."""
        said: ArtefactDescription = self.artefact.description
        runtime = _PACKAGES[said.format]
        return {
            "method": said.method,
            "title": said.title,
            "source": said.source,
            "seed": said.seed,
            "config": said.config,
            "deviations": [*said.deviations, f"exported: {said.format}, {said.precision}"],
            "precision": said.precision,
            "weights": said.weights,
            "train_scale": said.train_scale,
            "training_steps": said.training_steps,
            "photographs": said.photographs,
            "implementation": {"maps": f"predicted by {self.path.name}, model {said.model_sha256[:12]}"},
            "environment": environment(Slot(0, "cpu", usable_cores()), (runtime,)),
        }

    def load(self, sizes: Sizes) -> LoadedMaps:
        """Predict.

        Raises:
            MethodError: The artefact gives scores that are no numbers.
        """
        paths = [image.path for image in self.scenario.test]
        size = self.artefact.description.input_size
        images = decode_images(paths, size, self.cache, bits=bit_depth(self.scenario))
        maps = self.artefact.predict(images.pixels, self.scenario.names)
        digest = hashlib.sha256(b"".join([*(one.tobytes() for one in maps.maps), maps.scores.tobytes()])).hexdigest()
        return LoadedMaps(
            maps, MapsSource(sha256=digest), Uncalibrated("an exported detector brings no maps of normal images")
        )
