"""Fitted detectors on disk: the same maps again, bit by bit, and what is wrong with a file is said."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from bench.cell import Fitted, fit, predict
from bench.cells import Cell
from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
from bench.errors import DataError
from bench.machine.devices import Slot
from bench.models import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    FitFacts,
    ModelDescription,
    has_model,
    kept_models,
    link_model,
    load_detector,
    read_description,
    save_model,
)
from bench.options import RunOptions
from bench.plan import make_plan
from methods.detector import Detector, FitContext, ImageSet
from methods.weights.files import WeightIdentity

SLOT = Slot(0, "cpu", 1)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", enabled=False)


@pytest.fixture(params=["fp32", "bf16"])
def cell(
    request: pytest.FixtureRequest, plugin: Path, data_root: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> Cell:
    """``tiny`` on ``parts/bolt``, in either precision."""
    monkeypatch.syspath_prepend(str(plugin))
    options = RunOptions(("tiny",), "parts/bolt", data_root=data_root, precision=request.param, force=True)
    return make_plan(options, cache).cells[0]


@pytest.fixture
def fitted(cell: Cell, cache: Cache) -> Fitted:
    return fit(cell, SLOT, cache, lambda _: None)


def keep(directory: Path, cell: Cell, fitted: Fitted) -> ModelDescription:
    description = ModelDescription(
        method=cell.entrant.name,
        title=cell.entrant.title,
        config=cell.entrant.options(),
        precision=cell.precision,
        tf32=cell.tf32,
        input_size=fitted.detector.input_size,
        fit_key=cell.fit_key,
        record=cell.key,
        fit=fitted.facts,
        version="1",
    )
    return save_model(directory, fitted.detector, description)


def test_a_kept_model_predicts_the_same_maps_bit_by_bit(
    cell: Cell, fitted: Fitted, cache: Cache, tmp_path: Path
) -> None:
    folder = tmp_path / "run/cells/a"
    keep(folder, cell, fitted)
    pixels = decode_images([image.path for image in cell.scenario.test], (32, 32), cache).pixels
    before = predict(fitted.detector, cell.scenario.names, pixels, lambda _: None, tf32=False)
    for path in (folder, folder / MODEL_FILE, str(folder)):
        restored = load_detector(path)
        again = predict(restored, cell.scenario.names, pixels, lambda _: None, tf32=False)
        assert all((map_ == other).all() for map_, other in zip(before.maps, again.maps, strict=True))
        assert (before.scores == again.scores).all()
        assert restored.losses == fitted.facts.losses
    dtypes = {tensor.dtype for tensor in restored.module().parameters()}
    assert dtypes == {torch.bfloat16 if cell.precision == "bf16" else torch.float32}
    assert kept_models(tmp_path / "run") == {cell.fit_key: folder}


def test_a_model_is_shared_by_cells_and_survives_each(cell: Cell, fitted: Fitted, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    description = keep(first, cell, fitted)
    assert link_model(first, second) == description
    assert link_model(second, second) == description  # its own is left as it is
    (first / MODEL_FILE).unlink()
    assert not has_model(first)
    assert has_model(second)
    load_detector(second)


def damage_bytes(folder: Path) -> str:
    content = bytearray((folder / MODEL_FILE).read_bytes())
    content[-1] ^= 1
    (folder / MODEL_FILE).write_bytes(content)
    return "model.safetensors is damaged .its SHA-256 is"


def damage_description(folder: Path) -> str:
    (folder / DESCRIPTION_FILE).write_text('{"method": "tiny"}')
    return "model.json is damaged"


def remove_description(folder: Path) -> str:
    (folder / DESCRIPTION_FILE).unlink()
    return "--keep-models keeps the models"


def remove_model(folder: Path) -> str:
    (folder / MODEL_FILE).unlink()
    return "cannot read the model"


@pytest.mark.parametrize("damage", [damage_bytes, damage_description, remove_description, remove_model])
@pytest.mark.parametrize("cell", ["fp32"], indirect=True)
def test_a_damaged_model_is_refused_by_name(cell: Cell, fitted: Fitted, tmp_path: Path, damage: Any) -> None:
    keep(tmp_path, cell, fitted)
    message = damage(tmp_path)
    with pytest.raises(DataError, match=message):
        load_detector(tmp_path)


class Tied(nn.Module):
    """A state whose tensors share memory, lie scattered in it, or are empty."""

    def __init__(self) -> None:
        super().__init__()
        bank = torch.arange(12.0).reshape(3, 4)
        for name, tensor in (("bank", bank), ("same", bank), ("across", bank.T), ("part", bank[1]), ("none", bank[:0])):
            self.register_buffer(name, tensor)


@dataclass(frozen=True)
class NoOptions:
    """None."""


class TiedDetector(Detector[NoOptions]):
    title, source, Config = "Tied", "Nobody", NoOptions
    input_size: ClassVar[tuple[int, int]] = (8, 8)  # type: ignore[misc]

    def __init__(self, config: NoOptions) -> None:
        self.config = config
        self.fitted = Tied()

    @classmethod
    def weights(cls, config: NoOptions, weights_dir: Path) -> list[WeightIdentity]:
        return []

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None: ...

    @classmethod
    def build_module(cls, config: NoOptions, state: Mapping[str, Tensor]) -> nn.Module:
        return Tied()


def test_tensors_that_share_memory_are_kept_each_for_itself(
    tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = FitFacts(
        train=1, validation=0, training_steps=None, losses=[], implementation={}, decode_seconds=0, fit_seconds=0
    )
    description = ModelDescription(
        method="tied",
        title="Tied",
        config={},
        precision="fp32",
        tf32=False,
        input_size=(8, 8),
        fit_key="f",
        record="r",
        fit=facts,
        version="1",
    )
    saved = save_model(tmp_path, TiedDetector(NoOptions()), description)
    assert read_description(tmp_path) == saved
    monkeypatch.setattr("bench.models.load_method", lambda _: TiedDetector)  # it is no installed package's
    state = load_detector(tmp_path).module().state_dict()
    for name, tensor in Tied().state_dict().items():
        assert torch.equal(state[name], tensor), name
