"""A fitted detector, looked at before it is timed: what it is, what it costs, and what it says of fixed images."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.models import load_detector, read_description
from bench.timing.counting import count_costs
from bench.timing.job import Inspection
from bench.timing.workload import make_batches
from results.atomic import write_atomically
from results.migrations import load_record
from results.store import RECORD_FILE
from results.timing_record import Subject

REFERENCES = 4
"""Images whose maps are compared."""
SEED = 0


def inspect(inspection: Inspection) -> Subject:
    """Say what a kept model is and costs, and write the maps of fixed images by its plain module.

    Raises:
        DataError: There is no model, or it is damaged.
        ResultError: A file cannot be read or written.
    """
    description = read_description(inspection.model)
    record = load_record(inspection.model / RECORD_FILE)
    detector = load_detector(inspection.model, inspection.device)
    module = detector.module()
    images = reference_images(detector.input_size, torch.uint8)
    device = torch.device(inspection.device)
    with torch.inference_mode():
        maps = torch.cat([module(image.to(device))[0] for image in images]).cpu().numpy()
    write_atomically(inspection.reference, lambda file: np.savez(file, maps=maps))
    # In floating point, as the paper protocol takes images: scaling these counts too.
    costs = count_costs(module, images[0].to(device) / 255)
    return Subject(
        method=description.method,
        title=description.title,
        config=description.config,
        deviations=record.deviations,
        weights=record.weights,
        fit_key=description.fit_key,
        model_sha256=description.sha256,
        scenario=f"{record.collection.name}/{record.scenario}",
        train_images=description.fit.train,
        training_steps=description.fit.training_steps,
        train_scale=record.train_scale,
        memory_bank=costs.memory_bank,
        parameters=costs.parameters,
        flops=costs.flops,
        flops_3x3=costs.flops_3x3,
        search_flops=costs.search_flops,
    )


def reference_images(input_size: tuple[int, int], dtype: torch.dtype) -> list[Tensor]:
    """The fixed images, (1, 3, H, W) each: the first of those that are timed."""
    return make_batches(1, input_size, dtype, pinned=False, seed=SEED)[:REFERENCES]


def read_reference(path: Path) -> NDArray[np.float32]:
    """The maps of the fixed images by the plain module, (REFERENCES, h, w)."""
    with np.load(path, allow_pickle=False) as arrays:
        maps: NDArray[np.float32] = arrays["maps"]
    return maps
