import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from bench.datasets.cache import Cache
from bench.datasets.demo import DEMO_SCENARIOS, demo_folder
from bench.datasets.masks import read_ground_truth
from bench.datasets.pixels import image_size
from bench.datasets.selection import select_scenarios
from bench.errors import DataError

pytestmark = pytest.mark.slow
"""They share a collection, which takes seconds to draw."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def scenarios(cache):
    return {scenario.name: scenario for scenario in select_scenarios("demo", None, cache)}


def test_four_scenarios_that_say_what_they_are(scenarios):
    assert tuple(scenarios) == DEMO_SCENARIOS
    for scenario in scenarios.values():
        scenario.check()
        assert scenario.collection.note == (
            "synthetic defects on photographs: shows that the installation works, ranks nothing"
        )
        assert scenario.saturated == (scenario.name == "coins")
        assert bool(scenario.validation) == scenario.saturated
        assert len(scenario.train) == 48
        assert sum(not image.anomalous for image in scenario.test) == 16
        assert sum(image.anomalous for image in scenario.test) == 24
        paths = [*scenario.train, *scenario.validation, *(image.path for image in scenario.test)]
        assert len({hashlib.sha256(path.read_bytes()).digest() for path in paths}) == len(paths)


def test_masks_cover_what_was_drawn(scenarios):
    for scenario in scenarios.values():
        areas = []
        truth = read_ground_truth(scenario, [image_size(image.path) for image in scenario.test])
        for index, image in enumerate(scenario.test):
            if not image.anomalous:
                continue
            mask = truth.mask(index)
            areas.append(mask.mean())
            pixels = np.asarray(Image.open(image.path), dtype=float)
            if image.defect == "hole":
                assert pixels[mask].mean() < 0.5 * pixels[~mask].mean()
        assert min(areas) > 0.0002
        assert max(areas) < 0.15


def test_coins_have_structural_and_logical_anomalies(scenarios):
    coins = scenarios["coins"]
    truth = read_ground_truth(coins, [image_size(image.path) for image in coins.test])
    regions = {image.name: truth.defects(index) for index, image in enumerate(coins.test) if image.anomalous}
    logical = [regions[name] for name in regions if "/logical_anomalies/" in name]
    structural = [regions[name] for name in regions if "/structural_anomalies/" in name]
    assert (len(logical), len(structural)) == (12, 12)
    assert sorted(len(found) for found in logical) == [1] * 8 + [2] * 4
    areas = [(int(region.mask.sum()), region.saturation) for found in logical for region in found]
    assert any(saturation < area for area, saturation in areas)  # an empty slot is larger than its coin
    assert all(saturation > 3000 for _, saturation in areas)
    assert all(region.saturation == region.mask.sum() for found in structural for region in found)


def test_one_scenario_of_it(scenarios, cache):
    again = select_scenarios("demo/coins,demo/brick", None, Cache(cache.directory, enabled=False))
    assert [scenario.id for scenario in again] == ["demo/coins", "demo/brick"]
    assert again[0].fingerprint == scenarios["coins"].fingerprint


def test_is_made_again_identically_when_damaged(cache):
    folder = demo_folder(cache)
    manifest = json.loads((folder / "manifest.json").read_text())
    victim = folder / "brick/train/good/000.png"
    victim.write_bytes(victim.read_bytes()[:100])
    abandoned = folder.parent / f".{folder.name}.killed"
    abandoned.mkdir()
    assert demo_folder(cache) == folder
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    paths = [folder / name for name in manifest]
    assert Cache(cache.directory, enabled=False).digests(paths) == list(manifest.values())
    assert not abandoned.exists()


def test_is_reused_when_whole(cache):
    folder = demo_folder(cache)
    before = (folder / "manifest.json").stat().st_ino
    demo_folder(cache)
    assert (folder / "manifest.json").stat().st_ino == before


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DataError, match=r"cannot write the demo collection .* BENCH_CACHE"):
        select_scenarios("demo", None, Cache(tmp_path / "file" / "cache"))
