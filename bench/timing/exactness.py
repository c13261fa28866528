"""How exact a faster way to run a fitted detector is: its results on the scenario's test images beside the plain ones.

A row that is faster and another detector says nothing, so every row but the plain module's comes with this.
"""

from pathlib import Path

import numpy as np
import torch

from bench.artefacts.exporting import scenario_of
from bench.artefacts.parity import compare_on
from bench.artefacts.running import predict_by
from bench.cell import predict
from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.images import decode_images
from bench.errors import DataError
from bench.models import load_detector, read_description
from bench.scoring import AnomalyMaps, read_and_check
from bench.timing.job import Comparison
from bench.timing.protocols import timing_protocol
from bench.timing.subject import prepare, quantised_artefact
from results.atomic import write_atomically
from results.migrations import load_record
from results.parity import Parity
from results.store import RECORD_FILE


def compare_setup(comparison: Comparison) -> Parity:
    """Compare a setup with the plain module, as the run kept it, on the same device.

    What was quantised was compared when it was exported, and says so itself.

    Raises:
        BenchError: The test images are not at hand, or the setup is impossible here.
        MethodError: The detector cannot be run so.
    """
    model, setup = comparison.model, comparison.setup
    if setup.precision == "int8":
        said = quantised_artefact(model, setup).description.parity
        if said is None:
            raise DataError(f"the int8 artefact of {model} does not say how exact it is: export it again")
        return said
    cache, record = Cache(default_cache_directory()), load_record(model / RECORD_FILE)
    scenario = scenario_of(record, comparison.data_root, cache)
    protocol = timing_protocol(setup.protocol).on(setup.device).in_mode(setup.mode, setup.device)
    size = read_description(model).input_size
    test = decode_images([image.path for image in scenario.test], size, cache, bits=bit_depth(scenario))
    plain = _read(comparison.plain)
    if plain is None:
        detector = load_detector(model, setup.device)
        plain = predict(detector, scenario.names, test.pixels, lambda _: None, tf32=False)
        _write(comparison.plain, plain)
    ready = prepare(model, setup, protocol)
    dtype = getattr(torch, protocol.input_dtype)
    images = test.pixels if dtype == torch.uint8 else (test.pixels.float() / 255).to(dtype)
    other = predict_by(lambda part: ready.runner.run(part.to(setup.device)), images, setup.batch, scenario.names)
    return compare_on(plain, other, read_and_check(scenario, test.sizes), setup.threads)


def _read(path: Path) -> AnomalyMaps | None:
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return AnomalyMaps(list(arrays["maps"]), arrays["scores"])


def _write(path: Path, plain: AnomalyMaps) -> None:
    maps, scores = np.stack(plain.maps), plain.scores
    write_atomically(path, lambda file: np.savez(file, maps=maps, scores=scores))
