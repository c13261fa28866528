"""``bench submit``: the anomaly maps of MVTec AD 2's private test images, as its owners' evaluation site takes them.

::

    <out>/anomaly_images/<scenario>/{test_private,test_private_mixed}/<stem>.tiff             float16, the image's size
    <out>/anomaly_images_thresholded/<scenario>/{test_private,test_private_mixed}/<stem>.png  8 bits, 0 or 255

Source: the owners' code utilities for MVTec AD 2 (``check_and_prepare_data_for_upload.py``, 2025), whose check also
says how many images each scenario has, how they are called, and that nothing else may lie there.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from bench.cell import predict
from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.images import decode_images
from bench.datasets.pixels import image_size
from bench.datasets.scenario import Scenario, TestImage
from bench.datasets.selection import select_scenarios
from bench.errors import DataError, UsageError
from bench.machine.devices import choose_slots, make_products_deterministic
from bench.models import has_model, load_detector
from bench.options import SubmissionOptions
from metrics import UpsampledMaps, exceeds
from reports.content.variants import variant_identity
from results.record import Record, Threshold
from results.store import RunStore

COLLECTION = "mvtec_ad_2"
PRIVATE_IMAGES = {
    "can": 321,
    "fabric": 314,
    "fruit_jelly": 255,
    "rice": 277,
    "sheet_metal": 142,
    "vial": 276,
    "wallplugs": 232,
    "walnuts": 228,
}
"""Per scenario, in either private test set."""
SPLITS = {"test_private": "regular", "test_private_mixed": "mixed"}
"""The private test sets: folder to what the names of its images end with."""
MAPS, THRESHOLDED = "anomaly_images", "anomaly_images_thresholded"

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = 2.0**-4
"""Where the largest score of a scenario is below it, float16 would keep too few digits of the others."""
_SCALED_TO = 14
"""Scores are scaled by powers of two so that the largest has this exponent."""
_SHOWN = 4

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class SubmittedCell:
    """One scenario to predict.

    Attributes:
        record: Of the cell that fitted the model.
        directory: The cell's folder.
        scenario: Its images.
        threshold: What pixels must exceed to be called anomalous; ``None`` where no thresholded images are wanted.
        sizes: Height and width of each private image.
    """

    record: Record
    directory: Path
    scenario: Scenario
    threshold: Threshold | None
    sizes: Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class PreparedSubmission:
    """A submission before its first scenario.

    Attributes:
        cells: By scenario.
        out: Folder to write.
        device: Where to predict.
        cache: Where decoded images are kept.
        problems: Why the owners' site will not take it; empty if it is whole.
    """

    cells: tuple[SubmittedCell, ...]
    out: Path
    device: str
    cache: Cache
    problems: tuple[str, ...]


@dataclass(frozen=True)
class SubmittedScenario:
    """What was written of one scenario.

    Attributes:
        name: Of the scenario.
        images: Per private test set the number of images.
        factor: Power of two that all its scores were multiplied by; 1 if float16 holds them as they are.
        threshold: The one that the thresholded images are made with, of the scores before; ``None`` without them.
        bytes: Size of its files.
    """

    name: str
    images: dict[str, int]
    factor: float
    threshold: Threshold | None
    bytes: int

    def described(self) -> str:
        """One line about it."""
        counts = " and ".join(f"{count} {split}" for split, count in self.images.items())
        scaled = "" if self.factor == 1 else f", scores × 2^{round(math.log2(self.factor))}"
        cut = self.threshold
        chosen = (
            "" if cut is None else f", thresholded at {cut.value:g} ({cut.rule} of {cut.images} {cut.calibrated_on})"
        )
        return f"{self.name}: {counts}, {self.bytes / 2**20:,.1f} MiB{scaled}{chosen}"


def prepare_submission(options: SubmissionOptions) -> PreparedSubmission:
    """Find out what there is to submit, before anything is predicted.

    Raises:
        UsageError: The run has no models of this collection, or of several methods; the submission would not be
            whole; the folder to write is not empty, or the disk too small.
        DataError: A private image cannot be read.
        ResultError: The run folder cannot be read.
    """
    cache, store = Cache(default_cache_directory()), RunStore(options.run)
    records = _one_method(_records(store, options))
    _require_models(store, records)
    out = options.out or options.run / "submission"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already, and nothing else may lie in a submission\n  Choose another --out.")
    problems: list[str] = []
    cells = []
    for record in records:
        name = f"{record.collection.name}/{record.scenario}"
        scenario = select_scenarios(name, options.data_root, cache)[0]
        directory = store.cell_directory(record)
        if record.data is None or scenario.fingerprint != record.data.fingerprint:
            raise DataError(f"the files of {scenario.id} are not those that the model in {directory} was made for")
        if not scenario.unlabelled:
            problems.append(f"{record.scenario} has no images in {' and '.join(SPLITS)} of {scenario.folder}")
            continue
        sizes = [image_size(image.path) for image in scenario.unlabelled]
        cells.append(SubmittedCell(record, directory, scenario, _threshold(record, options), sizes))
        problems += _differences(scenario)
    problems += [f"no cell of {name}" for name in PRIVATE_IMAGES if name not in {record.scenario for record in records}]
    if (problems and not options.incomplete) or not cells:
        raise UsageError(
            f"the owners' site would not take this: {_some(problems)}\n  Run the scenarios that are missing with bench "
            "run --keep-models in the same folder; --incomplete writes what there is."
        )
    _check_space(out, cells)
    device = choose_slots(options.device, 1)[0].device
    return PreparedSubmission(tuple(cells), out, device, cache, tuple(problems))


def write_submission(prepared: PreparedSubmission) -> Iterator[SubmittedScenario]:
    """Predict and write one scenario after the other; the folder is there once all of them are, and whole.

    Raises:
        DataError: A model or an image is damaged.
        MethodError: A model gives NaN or infinite scores, or its method cannot use it.
        UsageError: The folder cannot be written.
    """
    make_products_deterministic()  # as in the cells
    staged = prepared.out.with_name(f".{prepared.out.name}.partial")
    try:
        shutil.rmtree(staged, ignore_errors=True)
        for cell in prepared.cells:
            yield _write_scenario(cell, staged, prepared)
        _check_tree(staged, prepared.cells)
        if prepared.out.exists():
            prepared.out.rmdir()
        staged.rename(prepared.out)
    except OSError as error:
        raise UsageError(f"cannot write {prepared.out}: {error.strerror or error}\n  Choose another --out.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def submit_run(options: SubmissionOptions, say: Say) -> int:
    """Write the submission of a run, and say what was written.

    Returns:
        The exit code: 0, or 3 if it is not whole.

    Raises:
        BenchError: As :func:`prepare_submission` and :func:`write_submission`.
        MethodError: Likewise.
        ResultError: Likewise.
    """
    prepared = prepare_submission(options)
    record = prepared.cells[0].record
    say(f"{record.title}, seed {record.seed}, on {prepared.device}: {len(prepared.cells)} scenarios")
    for scenario in write_submission(prepared):
        say(scenario.described())
    say(f"written: {prepared.out}")
    for problem in prepared.problems:
        say(f"not whole: {problem}")
    say("next: the owners' check_and_prepare_data_for_upload.py checks and packs it for https://benchmark.mvtec.com")
    return 3 if prepared.problems else 0


def _records(store: RunStore, options: SubmissionOptions) -> list[Record]:
    """The cells of a run that can predict private images of the collection."""
    if not (store.root / "cells").is_dir():
        raise UsageError(f"{store.root} is no run folder: give one of bench run --keep-models")
    records = [record for record in store.records() if record.status == "ok"]
    own = [record for record in records if record.collection.name == COLLECTION]
    if not own:
        there = ", ".join(sorted({record.collection.name for record in records})) or "no cell that worked"
        raise UsageError(
            f"only MVTec AD 2 takes submissions, {store.root} has {there}\n"
            f"  bench run --datasets {COLLECTION} --keep-models makes a run that can be submitted."
        )
    methods = sorted({record.method for record in own})
    if options.method is not None:
        own = [record for record in own if record.method == options.method]
        if not own:
            raise UsageError(f"no cell is of --method {options.method}\n  Allowed: {', '.join(methods)}")
    if options.seed is not None:
        seeds = ", ".join(map(str, sorted({record.seed for record in own})))
        own = [record for record in own if record.seed == options.seed]
        if not own:
            raise UsageError(f"no cell is of --seed {options.seed}\n  Allowed: {seeds}")
    return own


def _one_method(records: Sequence[Record]) -> list[Record]:
    """The cells by scenario, if they are of one method in one configuration with one seed."""
    rows = {(record.title, record.seed, variant_identity(record)) for record in records}
    if len(rows) > 1:
        names = sorted({f"{record.method}, seed {record.seed}" for record in records})
        told_apart = len(names) == len(rows)
        remedy = (
            "Choose one with --method and --seed."
            if told_apart
            else "They differ in options, weights or precision: submit from a run of one of them."
        )
        raise UsageError(f"a submission is of one method, this run has {len(rows)}: {'; '.join(names)}\n  {remedy}")
    newest: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: record.created):
        newest[record.scenario] = record
    return [newest[name] for name in sorted(newest)]


def _require_models(store: RunStore, records: Sequence[Record]) -> None:
    without = [record.scenario for record in records if not has_model(store.cell_directory(record))]
    if without:
        raise UsageError(
            f"these cells of {store.root} have kept no model: {', '.join(without)}\n"
            "  Run them again with bench run --keep-models."
        )


def _threshold(record: Record, options: SubmissionOptions) -> Threshold | None:
    if options.thresholds == "none":
        return None
    own = {threshold.rule: threshold for threshold in record.thresholds if threshold.level == "pixel"}
    if options.thresholds in own:
        return own[options.thresholds]
    reason = record.undefined.get(f"pixel_f1@{options.thresholds}", "its record has none, or is older than thresholds")
    raise UsageError(
        f"{record.scenario} has no threshold by the rule {options.thresholds}: {reason}\n"
        f"  Allowed: {', '.join([*own, 'none'])}. bench evaluate RUN --with-models chooses thresholds anew."
    )


def _differences(scenario: Scenario) -> Iterator[str]:
    """How the private images differ from those that the owners' check expects."""
    expected = PRIVATE_IMAGES.get(scenario.name)
    if expected is None:
        yield f"{scenario.name} is no scenario of MVTec AD 2"
        return
    for split, suffix in SPLITS.items():
        stems = {image.path.stem for image in _of_split(scenario, split)}
        wanted = {f"{number:03}_{suffix}" for number in range(expected)}
        if stems != wanted:
            different = sorted(stems ^ wanted)
            yield f"{scenario.name}/{split} has {len(stems)} of {expected} images, different: {_some(different)}"


def _of_split(scenario: Scenario, split: str) -> list[TestImage]:
    return [image for image in scenario.unlabelled if image.path.parent.name == split]


def _check_space(out: Path, cells: Sequence[SubmittedCell]) -> None:
    needed = sum(2 * height * width for cell in cells for height, width in cell.sizes)
    above = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(above).free
    if needed > free:
        raise UsageError(
            f"the submission takes {needed / 2**30:.1f} GiB, {above} has {free / 2**30:.1f} GiB free\n"
            "  Choose another --out."
        )


def _write_scenario(cell: SubmittedCell, folder: Path, prepared: PreparedSubmission) -> SubmittedScenario:
    images = cell.scenario.unlabelled
    detector = load_detector(cell.directory, prepared.device)
    decoded = decode_images(
        [image.path for image in images], detector.input_size, prepared.cache, bits=bit_depth(cell.scenario)
    )
    names = [image.name for image in images]
    maps = predict(detector, names, decoded.pixels, lambda _: None, tf32=cell.record.tf32).maps
    factor = scale(maps)
    written = 0
    for image, anomaly_map in zip(images, UpsampledMaps(maps, list(cell.sizes)), strict=True):
        place = Path(cell.scenario.name) / image.path.parent.name / image.path.stem
        written += _write_tiff(folder / MAPS / f"{place}.tiff", anomaly_map, factor)
        if cell.threshold is not None:
            written += _write_png(folder / THRESHOLDED / f"{place}.png", exceeds(anomaly_map, cell.threshold.value))
    counts = {split: len(_of_split(cell.scenario, split)) for split in SPLITS}
    return SubmittedScenario(cell.scenario.name, counts, factor, cell.threshold, written)


def scale(maps: Sequence[NDArray[Any]]) -> float:
    """The power of two that all scores of a scenario are multiplied by, so that float16 can hold them.

    It is 1 unless the largest score is beyond float16, whose largest number is 65504, or so small that the others
    would lose their digits. What is evaluated of the maps of a scenario are ranks, which a factor leaves as they are.

    Args:
        maps: Finite scores of one scenario.
    """
    largest = max(float(np.abs(array).max()) for array in maps)
    if largest == 0 or _SMALLEST <= largest <= _LARGEST:
        return 1.0
    return 2.0 ** (_SCALED_TO - math.frexp(largest)[1] + 1)


def _write_tiff(path: Path, anomaly_map: NDArray[Any], factor: float) -> int:
    scores = (anomaly_map.astype(np.float64) * factor).astype(np.float16)
    if not np.isfinite(scores).all():
        raise DataError(f"the map for {path} has scores that float16 cannot hold")  # scale() has seen to that
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, scores, metadata=None)
    return path.stat().st_size


def _write_png(path: Path, called: NDArray[np.bool_]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(called.astype(np.uint8) * np.uint8(255)).save(path)
    return path.stat().st_size


def _check_tree(folder: Path, cells: Sequence[SubmittedCell]) -> None:
    """Make sure that what lies there is what was meant to, and nothing else.

    Raises:
        DataError: Something is missing, cut off or superfluous.
    """
    smallest: dict[Path, int] = {}
    for cell in cells:
        for image, (height, width) in zip(cell.scenario.unlabelled, cell.sizes, strict=True):
            place = Path(cell.scenario.name) / image.path.parent.name / image.path.stem
            smallest[folder / MAPS / f"{place}.tiff"] = 2 * height * width
            if cell.threshold is not None:
                smallest[folder / THRESHOLDED / f"{place}.png"] = 1
    there = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    wrong = sorted(str(path) for path in smallest.keys() ^ there.keys())
    wrong += sorted(str(path) for path, size in smallest.items() if there.get(path, size) < size)
    if wrong:
        raise DataError(f"the submission was not written whole: {_some(wrong)}\n  Run the same command again.")


def _some(items: Sequence[str]) -> str:
    rest = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return "; ".join(items[:_SHOWN]) + rest
