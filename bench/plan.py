"""Methods × scenarios × seeds → cells, and the keys that say when two are the same."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from bench.datasets.cache import Cache
from bench.datasets.photographs import PhotographFolder
from bench.datasets.scenario import Scenario
from bench.datasets.selection import select_scenarios
from bench.errors import DataError, UsageError, unknown_name
from bench.options import RunOptions
from bench.protocol import PROTOCOL
from bench.source_digest import code_version
from methods.detector import FitContext
from methods.errors import WeightsError
from methods.registry import load_method, make_config, method_names
from methods.weights.files import WeightIdentity
from results.record import Scalar
from results.store import CellId

EMBEDDED = "embedded"
"""The preset that the demo takes by itself: it needs no download."""


@dataclass(frozen=True)
class Entrant:
    """A method in the configuration in which it takes part.

    Attributes:
        name: In the registry.
        title: As tables print it.
        source: The paper.
        config: Its options.
        preset: The named option set they come from, if any.
        deviations: What distinguishes it from the paper's configuration.
        weights: Its pretrained weights.
        code: Hash of the code that determines its results.
        steps: Optimiser steps to expect; ``None`` for a method that does not train.
        photographs: Images for its pretraining penalty; ``None`` for a method that has none.
    """

    name: str
    title: str
    source: str
    config: Any
    preset: str | None
    deviations: tuple[str, ...]
    weights: tuple[WeightIdentity, ...]
    code: str
    steps: int | None
    photographs: PhotographFolder | None

    def options(self) -> dict[str, Scalar | list[Scalar]]:
        """Its options as a record stores them."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self.config).items()}


@dataclass(frozen=True)
class Cell:
    """One method on one scenario with one seed.

    Attributes:
        entrant: The method.
        scenario: The images.
        seed: Seeds every random choice.
        train_scale: Factor on the training length.
        weights_dir: Where downloaded weights are kept.
        key: SHA-256 over everything that determines the result.
    """

    entrant: Entrant
    scenario: Scenario
    seed: int
    train_scale: float
    weights_dir: Path
    key: str

    @property
    def label(self) -> str:
        """Method, scenario and seed, for display."""
        return f"{self.entrant.name} · {self.scenario.id} · {self.seed}"

    @property
    def id(self) -> CellId:
        """What names its folder."""
        return CellId(self.entrant.name, self.scenario.collection.name, self.scenario.name, self.seed, self.key)


@dataclass(frozen=True)
class Plan:
    """The cells of a run, scenario by scenario, so that each is decoded once.

    Attributes:
        cells: In the order in which they run.
        photographs: What the pretraining penalty takes its images from; ``None`` if no method has one.
    """

    cells: tuple[Cell, ...]
    photographs: str | None

    @property
    def keys(self) -> list[str]:
        """The keys of all cells, sorted."""
        return sorted(cell.key for cell in self.cells)


def make_plan(options: RunOptions, cache: Cache) -> Plan:
    """Find out which cells the options ask for.

    Raises:
        BenchError: A name is unknown, or there are no such data.
        MethodError: A method does not take its options, or its weights are missing.
    """
    methods = tuple(dict.fromkeys(options.methods))
    for name in methods:
        if name not in method_names():
            raise unknown_name("method", name, method_names())
    for name in options.set:
        if name not in methods:
            guess = "".join(f"; did you mean {match}?" for match in get_close_matches(name, methods, n=1))
            raise UsageError(
                f"--set names the method {name!r}, which does not take part{guess}\n  Allowed: {', '.join(methods)}"
            )
    scenarios = select_scenarios(options.datasets, options.data_root, cache)
    photographs = find_photographs(options, cache)
    demo_only = all(scenario.collection.name == "demo" for scenario in scenarios)
    entrants = [_entrant(name, options, photographs, demo_only) for name in methods]
    device = device_kind(options.device)
    cells = [
        _cell(entrant, scenario, seed, options, device)
        for scenario in scenarios
        for entrant in entrants
        for seed in dict.fromkeys(options.seeds)
    ]
    uses = any(load_method(name).uses_photographs for name in methods)
    return Plan(tuple(cells), (photographs.identity if photographs else "none") if uses else None)


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
    folders = (options.data_root / name for name in ("imagenet", "photographs"))
    return next((PhotographFolder(folder.absolute(), cache) for folder in folders if folder.is_dir()), None)


def device_kind(device: str) -> str:
    """``cpu`` or ``cuda``: what the result depends on, not which GPU it is."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device.partition(":")[0]


def weights_folder(options_dir: Path | None) -> Path:
    """Where downloaded weights are kept: the folder given, else the default one."""
    return options_dir or FitContext(seed=0).weights_dir


def _entrant(name: str, options: RunOptions, photographs: PhotographFolder | None, demo_only: bool) -> Entrant:
    method = load_method(name)
    preset = options.preset
    if preset is None and demo_only and EMBEDDED in method.presets:
        preset = EMBEDDED
    config = make_config(method, preset, options.set.get(name, {}))
    folder = weights_folder(options.weights_dir)
    try:
        weights = tuple(method.weights(config, folder))
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
    context = FitContext(seed=0, train_scale=options.train_scale, weights_dir=folder, photographs=photographs)
    length = getattr(config, "training_steps", None)
    return Entrant(
        name=name,
        title=method.title,
        source=method.source,
        config=config,
        preset=preset,
        deviations=tuple(method.deviations(config, context)),
        weights=weights,
        code=code_version(method.__module__),
        steps=context.training_steps(length) if isinstance(length, int) else None,
        photographs=photographs if method.uses_photographs else None,
    )


def _cell(
    entrant: Entrant,
    scenario: Scenario,
    seed: int,
    options: RunOptions,
    device: str,
) -> Cell:
    determines: dict[str, object] = {
        "method": entrant.name,
        "config": entrant.options(),
        "weights": [weights.sha256 or weights.tag for weights in entrant.weights],
        "code": entrant.code,
        "scenario": scenario.id,
        "data": _fingerprint(scenario),
        "protocol": PROTOCOL.hash,
        "train_scale": options.train_scale,
        "seed": seed,
        "photographs": entrant.photographs.identity if entrant.photographs else None,
        "device": device,
    }
    key = hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()
    folder = weights_folder(options.weights_dir)
    return Cell(entrant, scenario, seed, options.train_scale, folder, key)


def _fingerprint(scenario: Scenario) -> str:
    try:
        return scenario.fingerprint
    except DataError as error:
        # The cell will fail and say why; its key must only differ from that of the repaired scenario.
        return str(error)


def _plain(value: object) -> Scalar | list[Scalar]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_scalar(item) for item in value]
    return _scalar(value)


def _scalar(value: object) -> Scalar:
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)
