"""``bench export``: a kept model in the format of another runtime, compared with the module at once."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.artefacts.description import ArtefactDescription, Format
from bench.artefacts.parity import compare
from bench.artefacts.running import Artefact, open_artefact
from bench.artefacts.writing import SUFFIXES, check_packages, write_artefact
from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.images import decode_images
from bench.datasets.scenario import Scenario
from bench.datasets.selection import select_scenarios
from bench.errors import DataError, UsageError
from bench.machine.devices import usable_cores
from bench.machine.environment import DISTRIBUTION, package_versions
from bench.models import DESCRIPTION_FILE, ModelDescription, load_detector, read_description
from bench.options import ExportOptions
from methods.common.precision import set_precision
from methods.detector import Detector
from results.migrations import load_record
from results.record import Record
from results.store import RECORD_FILE, safe_name

_BATCH = 8


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        files: Written; none if decisions flip and that was not allowed.
        description: What the artefact says of itself, with what the comparison found.
    """

    files: tuple[Path, ...]
    description: ArtefactDescription


def export_model(options: ExportOptions) -> Exported:
    """Export a kept model and compare the file with the module on the scenario's test images.

    The file is written under another name first, compared, and gets its own name when it may stay.

    Raises:
        UsageError: The folder is no cell, the packages are missing, or the model was kept in another precision.
        DataError: The model or an image is damaged, or the scenario's files are not those of the fit.
        ResultError: A file cannot be written.
    """
    check_packages(options.format)
    cell = _cell_of(options.model)
    description, record = read_description(cell), load_record(cell / RECORD_FILE)
    if description.precision not in ("fp32", options.precision):
        raise UsageError(f"the model was kept in {description.precision} and cannot be exported in {options.precision}")
    scenario = _scenario(record, options)
    detector = load_detector(cell)
    test = decode_images(
        [image.path for image in scenario.test],
        detector.input_size,
        Cache(default_cache_directory()),
        bits=bit_depth(scenario),
    )
    plain = _predict(detector, test.pixels)
    if options.precision != description.precision:
        set_precision(detector.module(), options.precision)
    said = _describe(description, record, options)
    out = options.out or cell / f"{safe_name(description.method)}-{options.precision}{SUFFIXES[options.format]}"
    images = test.pixels[:1].repeat(options.batch, 1, 1, 1)
    module = detector.module().eval()
    trial = out.with_name(f".{out.stem}.trial{out.suffix}")
    try:
        write_artefact(trial, module, images, said)
        if options.format == "torch_export":  # reading such a file may run code; the program that is in it does not
            artefact = Artefact(said, torch.export.export(module, (images,)).module())
        else:
            artefact = open_artefact(trial, usable_cores())
        other = artefact.predict(test.pixels)
    finally:
        for file in (trial, trial.with_suffix(".bin")):
            file.unlink(missing_ok=True)
    parity = compare(plain, other, [image.anomalous for image in scenario.test], scenario.names)
    said = said.model_copy(update={"parity": parity})
    if parity.flipped and not options.allow_flips:
        return Exported((), said)
    return Exported(tuple(write_artefact(out, module, images, said)), said)


def _cell_of(path: Path) -> Path:
    """The folder of the cell that a path names: that folder, its model, or a run folder with one model."""
    if (path / DESCRIPTION_FILE).is_file():
        return path
    if path.is_file() and (path.parent / DESCRIPTION_FILE).is_file():
        return path.parent
    cells = sorted(folder.parent for folder in path.glob(f"cells/*/{DESCRIPTION_FILE}"))
    if len(cells) == 1:
        return cells[0]
    if cells:
        names = "\n  ".join(str(cell) for cell in cells)
        raise UsageError(f"{path} keeps {len(cells)} models: name one of\n  {names}")
    raise UsageError(f"no fitted detector is kept in {path}\n  bench run --keep-models keeps those of its cells.")


def _scenario(record: Record, options: ExportOptions) -> Scenario:
    name = f"{record.collection.name}/{record.scenario}"
    scenario = select_scenarios(name, options.data_root, Cache(default_cache_directory()))[0]
    scenario.check_test()
    if record.data is None or scenario.fingerprint != record.data.fingerprint:
        raise DataError(f"the files of {name} are not those that the model was fitted and evaluated on")
    return scenario


def _predict(detector: Detector[object], pixels: Tensor) -> tuple[Tensor, Tensor]:
    predictions = [detector.predict(part) for part in pixels.split(_BATCH)]
    return torch.cat([one.maps for one in predictions]), torch.cat([one.scores for one in predictions])


def _describe(model: ModelDescription, record: Record, options: ExportOptions) -> ArtefactDescription:
    kind: Format = options.format
    return ArtefactDescription(
        format=kind,
        method=model.method,
        title=model.title,
        source=record.source,
        config=model.config,
        deviations=record.deviations,
        precision=options.precision,
        input_size=model.input_size,
        batch=options.batch,
        scenario=f"{record.collection.name}/{record.scenario}",
        seed=record.seed,
        train_images=model.fit.train,
        fit_key=model.fit_key,
        model_sha256=model.sha256,
        thresholds={one.rule: one.value for one in record.thresholds if one.level == "image"},
        version=package_versions().get(DISTRIBUTION, "not installed"),
    )
