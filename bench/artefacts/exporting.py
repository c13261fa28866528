"""``bench export``: a kept model in the format of another runtime, compared with the module at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.artefacts.description import ArtefactDescription, Format
from bench.artefacts.parity import compare_on
from bench.artefacts.running import Artefact
from bench.artefacts.writing import (
    SUFFIXES,
    Program,
    casts_itself,
    check_format,
    hint_of,
    quantise,
    translate,
)
from bench.cell import predict, training_images
from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.images import decode_images
from bench.datasets.scenario import Scenario
from bench.datasets.selection import select_scenarios
from bench.errors import DataError, UsageError
from bench.machine.devices import usable_cores
from bench.machine.environment import DISTRIBUTION, package_versions
from bench.models import DESCRIPTION_FILE, ModelDescription, kept_models, load_detector, read_description
from bench.options import ExportOptions
from bench.scoring import read_and_check
from methods.common.precision import set_precision
from methods.detector import Detector
from methods.weights.catalogue import weight_files
from results.migrations import load_record
from results.record import ArtefactPrecision, Record, Weights
from results.store import RECORD_FILE, safe_name

CALIBRATION_IMAGES = 300
"""Training images, at most, by which quantisation chooses ranges of values; as many as NNCF takes by itself."""


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        files: Written; none if decisions flip and that was not allowed.
        description: What the artefact says of itself, with what the comparison found.
    """

    files: tuple[Path, ...]
    description: ArtefactDescription


def chosen_cells(options: ExportOptions) -> list[Path]:
    """The folders of the cells whose models are to be exported.

    Raises:
        UsageError: A folder keeps no model, packages are missing, or several models are to go into one file.
    """
    check_format(options.format, options.precision)
    cells = list(dict.fromkeys(cell for path in options.models for cell in _cells_of(path)))
    if options.out is not None and len(cells) > 1:
        names = "\n  ".join(str(cell) for cell in cells)
        raise UsageError(f"--out is one file, and there are {len(cells)} models: name one of\n  {names}")
    return cells


def export_model(cell: Path, options: ExportOptions) -> Exported:
    """Export a kept model; what is written was compared with the module on the scenario's test images before.

    Args:
        cell: Folder of its cell.
        options: How, and where to.

    Raises:
        UsageError: Packages are missing, or the model cannot be had in the format or precision.
        DataError: The model or an image is damaged, or the scenario's files are not those of the fit.
        MethodError: The artefact gives scores that are no numbers, or its maps differ in size from the module's.
        ResultError: A file cannot be written.
    """
    check_format(options.format, options.precision)
    out = _out(options)
    cache = Cache(default_cache_directory())
    kept, record = read_description(cell), load_record(cell / RECORD_FILE)
    if kept.precision not in ("fp32", options.precision):
        raise UsageError(f"the model was kept in {kept.precision} and cannot be exported in {options.precision}")
    scenario = scenario_of(record, options.data_root, cache)
    detector = load_detector(cell)
    paths = [image.path for image in scenario.test]
    test = decode_images(paths, detector.input_size, cache, bits=bit_depth(scenario))
    truth = read_and_check(scenario, test.sizes)
    plain = predict(detector, scenario.names, test.pixels, lambda _: None, tf32=kept.tf32)
    program = _translated(detector, kept, record, scenario, options, cache)
    said = _describe(kept, record, options)
    other = Artefact(said, program.runner(usable_cores())).predict(test.pixels, scenario.names)
    parity = compare_on(plain, other, truth, usable_cores())
    said = said.model_copy(update={"parity": parity})
    if parity.flipped and not options.allow_flips:
        return Exported((), said)
    out = out or cell / artefact_name(kept.method, options.format, options.precision, fused=options.fused)
    return Exported(tuple(program.write(out, said.model_dump_json())), said)


def artefact_name(method: str, kind: Format, precision: ArtefactPrecision, *, fused: bool) -> str:
    """What the file of an exported detector is called in the folder of its cell."""
    return f"{safe_name(method)}{'-fused' if fused else ''}-{precision}{SUFFIXES[kind]}"


def _out(options: ExportOptions) -> Path | None:
    """The file to write, if it is called as its format has to be."""
    suffix = SUFFIXES[options.format]
    if options.out is not None and options.out.suffix != suffix:
        raise UsageError(f"--out {options.out} does not end with {suffix}, as files of the format {options.format} do")
    return options.out


def _cells_of(path: Path) -> list[Path]:
    """The folders of the cells that a path names: a cell's folder, its model, or a run folder."""
    if (path / DESCRIPTION_FILE).is_file():
        return [path]
    if path.is_file() and (path.parent / DESCRIPTION_FILE).is_file():
        return [path.parent]
    cells = sorted(kept_models(path).values())
    if not cells:
        raise UsageError(f"no fitted detector is kept in {path}\n  bench run --keep-models keeps those of its cells.")
    return cells


def scenario_of(record: Record, data_root: Path, cache: Cache) -> Scenario:
    """The scenario that a record is of, with its test images at hand.

    Raises:
        BenchError: There are no such data.
        DataError: They are others than those of the record.
    """
    name = f"{record.collection.name}/{record.scenario}"
    scenario = select_scenarios(name, data_root, cache)[0]
    scenario.check_test()
    if record.data is None or scenario.fingerprint != record.data.fingerprint:
        raise DataError(f"the files of {name} are not those that the model was fitted and evaluated on")
    return scenario


def _translated(
    detector: Detector[Any],
    kept: ModelDescription,
    record: Record,
    scenario: Scenario,
    options: ExportOptions,
    cache: Cache,
) -> Program:
    """The detector in the format and precision that are asked for."""
    size, precision = detector.input_size, options.precision
    module = detector.fused_module() if options.fused else detector.module()
    if precision != "int8" and precision != kept.precision and not casts_itself(options.format):
        set_precision(module, precision)
    images = torch.zeros(options.batch, 3, *size, dtype=torch.uint8)
    program = translate(options.format, module.eval(), images, precision)
    if precision != "int8":
        return program
    train, _ = training_images(scenario, detector, record.seed, cache, hold_out=bool(kept.fit.validation))
    return quantise(program, _calibration(train[:CALIBRATION_IMAGES], options.batch))


def _calibration(images: Tensor, batch: int) -> Tensor:
    """Images in whole batches; fewer than one make one by repetition."""
    if len(images) < batch:
        return images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch]
    return images[: len(images) // batch * batch]


def _describe(kept: ModelDescription, record: Record, options: ExportOptions) -> ArtefactDescription:
    hint = f"INFERENCE_PRECISION_HINT={hint_of(options.precision)}: OpenVINO may take another by itself"
    return ArtefactDescription(
        format=options.format,
        method=kept.method,
        title=kept.title,
        source=record.source,
        config=kept.config,
        deviations=[*record.deviations, *(["fused form"] if options.fused else [])],
        weights=record.weights,
        licences=_licences(record.weights),
        precision=options.precision,
        run_with=hint if casts_itself(options.format) else "",
        input_size=kept.input_size,
        batch=options.batch,
        scenario=f"{record.collection.name}/{record.scenario}",
        seed=record.seed,
        train_images=kept.fit.train,
        train_scale=record.train_scale,
        training_steps=kept.fit.training_steps,
        photographs=record.photographs,
        fit_key=kept.fit_key,
        model_sha256=kept.sha256,
        thresholds={one.rule: one.value for one in record.thresholds if one.level == "image"},
        version=package_versions().get(DISTRIBUTION, "not installed"),
    )


def _licences(weights: Sequence[Weights]) -> list[str]:
    """What is known of the licence of each; of a user's own file, nothing is."""
    known = {name: file.licence for name, file in weight_files().items()}
    return [
        f"{one.name}: {'not known' if one.source == 'file' else known.get(one.name, 'not known')}"
        for one in weights
        if one.source != "random"
    ]
