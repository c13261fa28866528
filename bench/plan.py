"""Methods × scenarios × seeds → the cells of a run."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from bench.cell import split
from bench.cells import Cell, Entrant
from bench.datasets.cache import Cache
from bench.datasets.inventory import PHOTOGRAPH_FOLDERS
from bench.datasets.photographs import PhotographFolder
from bench.datasets.scenario import Scenario
from bench.datasets.selection import passed_over, select_scenarios
from bench.errors import UsageError
from bench.keys import fit_key, score_key
from bench.options import RunOptions
from bench.protocol import PROTOCOL
from methods.common.precision import check_precision
from methods.config import PAPER, choose_preset, make_config
from methods.detector import Detector, FitContext
from methods.errors import WeightsError
from methods.registry import chosen_methods, load_method
from methods.training_length import optimiser_steps, scaled_steps
from methods.weights.files import WeightIdentity
from results.record import Record

DEMO_PRESETS = ("demo", "embedded", PAPER)
"""The first of these that a method has is the preset that the demo takes by itself: the first two need no download."""
HELD_OUT = "validation images held out"
"""What a row says of a method that is fitted on fewer images than it could be, so that thresholds can be chosen."""


@dataclass(frozen=True)
class Plan:
    """The cells of a run, scenario by scenario, so that each is decoded once.

    Attributes:
        cells: In the order in which they run.
        photographs: What the pretraining penalty takes its images from; ``None`` if no method has one.
        passed_over: What looks like data and is not read, where all are asked for; one sentence each.
    """

    cells: tuple[Cell, ...]
    photographs: str | None
    passed_over: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        """The keys of all cells, sorted."""
        return sorted(cell.key for cell in self.cells)


def make_plan(options: RunOptions, cache: Cache) -> Plan:
    """Find out which cells the options ask for.

    Raises:
        BenchError: A name is unknown, or there are no such data.
        MethodError: A method does not take its options, no method has its weights, or the CPU only emulates the
            precision.
    """
    methods = {name: load_method(name) for name in chosen_methods(options.methods)}
    for name in options.set:
        if name not in methods:
            guess = "".join(f"; did you mean {match}?" for match in get_close_matches(name, methods, n=1))
            raise UsageError(
                f"--set names the method {name!r}, which does not take part{guess}\n  Allowed: {', '.join(methods)}"
            )
    if options.oracle and options.precision != "fp32":
        raise UsageError(
            f"--oracle evaluates states of a training, which is in fp32, and --precision is {options.precision}\n"
            "  Leave one of them out."
        )
    device = device_kind(options.device)
    check_precision(options.precision, torch.device(device), forced=options.force)
    scenarios = select_scenarios(options.datasets, options.data_root, cache, options.masks)
    photographs = find_photographs(options, cache)
    demo_only = all(scenario.collection.name == "demo" for scenario in scenarios)
    entrants = [_entrant(name, method, options, photographs, demo_only) for name, method in methods.items()]
    if all(entrant.unavailable for entrant in entrants):
        raise WeightsError("\n".join(f"{entrant.name}: {entrant.unavailable}" for entrant in entrants))
    cells = [
        _cell(entrant, scenario, seed, options, device)
        for scenario in scenarios
        for entrant in entrants
        for seed in dict.fromkeys(options.seeds)
    ]
    uses = any(method.uses_photographs for method in methods.values())
    return Plan(
        tuple(cells),
        (photographs.identity if photographs else "none") if uses else None,
        passed_over(options.datasets, options.data_root),
    )


def cell_document(cell: Cell, record: Record | None, due: str | None) -> dict[str, object]:
    """What would be done with a cell, for programs: plain values that JSON can hold.

    Args:
        cell: The cell.
        record: Its record so far.
        due: Why it is to run; ``None`` if it is not.
    """
    entrant = cell.entrant
    return {
        "method": entrant.name,
        "scenario": cell.scenario.id,
        "seed": cell.seed,
        "config": entrant.options(),
        "preset": entrant.preset,
        "deviations": list(entrant.deviations),
        "unavailable": entrant.unavailable or None,
        "precision": cell.precision,
        "tf32": cell.tf32,
        "training_steps": cell.training_steps,
        "record": record.status if record else None,
        "due": due,
        "fit_key": cell.fit_key,
        "key": cell.key,
    }


def find_photographs(options: RunOptions, cache: Cache) -> PhotographFolder | None:
    """The folder of images for the pretraining penalty: the one named, else ImageNet, else any photographs.

    Raises:
        DataError: The folder named does not exist or holds no images.
    """
    if options.penalty_images == "none":
        return None
    if options.penalty_images is not None:
        named = PhotographFolder(Path(options.penalty_images).absolute(), cache)
        named.check()
        return named
    folders = (options.data_root / name for name in PHOTOGRAPH_FOLDERS)
    return next((PhotographFolder(folder.absolute(), cache) for folder in folders if folder.is_dir()), None)


def device_kind(device: str) -> str:
    """``cpu`` or ``cuda``: what the result depends on, not which GPU it is."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.partition(":")[0]


def _entrant(
    name: str,
    method: type[Detector[Any]],
    options: RunOptions,
    photographs: PhotographFolder | None,
    demo_only: bool,
) -> Entrant:
    preset = choose_preset(method, options.preset or (DEMO_PRESETS if demo_only else (PAPER,)))
    config = make_config(method, preset, options.set.get(name, {}))
    weights: tuple[WeightIdentity, ...] = ()
    unavailable = ""
    try:
        weights = tuple(method.weights(config, options.weights_dir))
    except WeightsError as error:  # fails its own cells, which say so
        unavailable = str(error)
    context = FitContext(
        seed=0, train_scale=options.train_scale, weights_dir=options.weights_dir, photographs=photographs
    )
    return Entrant(
        name=name,
        title=method.title,
        source=method.source,
        config=config,
        preset=preset,
        deviations=(*method.deviations(config, context), *_added_deviations(method, options)),
        weights=weights,
        photographs=photographs if method.uses_photographs else None,
        unavailable=unavailable,
    )


def _added_deviations(method: type[Detector[Any]], options: RunOptions) -> Iterator[str]:
    """What distinguishes a row from the paper's configuration that a method cannot see."""
    if options.precision != "fp32":
        yield f"precision {options.precision}"
    if options.tf32:
        yield "TF32"
    if method.fused:
        yield f"algebraically fused: {method.fused}"


def _cell(entrant: Entrant, scenario: Scenario, seed: int, options: RunOptions, device: str) -> Cell:
    # Where images are held out anyhow, or are there besides, the option changes nothing.
    method = load_method(entrant.name)
    hold_out = options.hold_out and not scenario.validation and not method.uses_validation
    if hold_out:
        entrant = dataclasses.replace(entrant, deviations=(*entrant.deviations, HELD_OUT))
    fitted = fit_key(
        entrant,
        scenario,
        seed=seed,
        train_scale=options.train_scale,
        precision=options.precision,
        tf32=options.tf32,
        device=device,
        hold_out=hold_out,
    )
    return Cell(
        entrant=entrant,
        scenario=scenario,
        seed=seed,
        train_scale=options.train_scale,
        training_steps=_training_steps(method, entrant, scenario, seed, options),
        precision=options.precision,
        tf32=options.tf32,
        weights_dir=options.weights_dir,
        hold_out=hold_out,
        force_precision=options.force,
        fit_key=fitted,
        key=score_key(fitted, scenario),
    )


def _training_steps(
    method: type[Detector[Any]], entrant: Entrant, scenario: Scenario, seed: int, options: RunOptions
) -> int | None:
    """Optimiser steps to expect; ``None`` for a method that does not train."""
    length = method.training_length(entrant.config)
    if length is None:
        return None
    holds_out = (options.hold_out or method.uses_validation) and not scenario.validation
    count = len(scenario.train)
    images = len(split(count, PROTOCOL.validation_fraction, seed)[0]) if holds_out else count
    return scaled_steps(optimiser_steps(length, images), options.train_scale)
