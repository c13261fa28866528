"""What a cell is fitted on, and what its record says of the losses."""

from pathlib import Path

import pytest
from PIL import Image

from bench.cell import split, thin, training_images
from bench.datasets.cache import Cache
from bench.datasets.scenario import Scenario
from methods.registry import load_method
from results.record import Collection


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (9, 1), (25, 2), (209, 21)])
def test_a_tenth_is_held_out_and_never_everything(count: int, held_out: int) -> None:
    train, validation = split(count, 0.1, seed=3)
    assert len(validation) == held_out
    assert sorted(train + validation) == list(range(count))
    assert split(count, 0.1, seed=3) == (train, validation)


def test_another_seed_holds_out_others() -> None:
    assert split(100, 0.1, seed=0) != split(100, 0.1, seed=1)


@pytest.mark.parametrize(("calibrates", "counts"), [(True, (9, 1)), (False, (10, 0))])
def test_only_a_method_that_calibrates_has_training_images_held_out(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calibrates: bool, counts: tuple[int, int]
) -> None:
    monkeypatch.syspath_prepend(str(plugin))
    tiny = load_method("tiny")
    monkeypatch.setattr(tiny, "uses_validation", calibrates)
    for index in range(10):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index}.png")
    collection = Collection(name="parts", title="Parts")
    scenario = Scenario(collection, "bolt", train=tuple(sorted(tmp_path.glob("*.png"))), validation=(), test=())
    sets = training_images(scenario, tiny(tiny.Config()), 0, Cache(tmp_path / "cache", enabled=False))
    assert tuple(map(len, sets)) == counts


def test_losses_are_thinned_evenly_and_finite() -> None:
    losses = [(step, float(step)) for step in range(1, 1001)]
    thinned = thin([*losses, (1001, float("nan"))])
    assert len(thinned) == 200
    assert (thinned[0], thinned[-1]) == (losses[0], losses[-1])
    assert thin(losses[:5]) == losses[:5]
