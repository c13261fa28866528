"""Test images that are training images are found, and other images of the same kind are not."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.copies import find_copies
from bench.datasets.data_notes import take_notes
from bench.datasets.demo import DEMO_SCENARIOS
from bench.datasets.selection import select_scenarios


def textured(seed, size=(160, 200)):
    """Smooth shapes under fine noise, different for each seed."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(60, 200, (8, 10), dtype=np.uint8)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    return (np.asarray(coarse) + random.normal(0, 4, size)).clip(0, 255).astype(np.uint8)


def saved(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.slow
def test_copies_are_told_from_other_pictures(tmp_path):
    seen = [saved(tmp_path / f"train/{index}.png", textured(index)) for index in range(40)]
    test = [
        Path(shutil.copy(seen[7], tmp_path / "same.png")),
        saved(tmp_path / "other.png", textured(100)),
        saved(tmp_path / "again.jpg", textured(9), quality=90),
        saved(tmp_path / "smaller.png", np.asarray(Image.fromarray(textured(11)).resize((150, 120)))),
        saved(tmp_path / "another.png", textured(101)),
    ]
    flawed = textured(12)
    flawed[80:92, 90:102] += 40
    test.append(saved(tmp_path / "flawed.png", flawed))
    copies = find_copies(test, seen, Cache(tmp_path / "cache"), None)
    assert copies.identical == (0,)
    assert copies.similar == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1, 3, 8])
@pytest.mark.parametrize("structure", [0, 90], ids=["uniform surface", "fixed camera"])
def test_photographs_of_which_only_the_noise_differs_are_no_copies(tmp_path, structure, noise):
    random = np.random.default_rng(0)
    scene = np.kron(random.uniform(120 - structure, 120 + structure, (32, 32)), np.ones((16, 16)))

    def photograph():
        return (scene + random.normal(0, noise, scene.shape)).clip(0, 255).astype(np.uint8)

    seen = [saved(tmp_path / f"train/{index}.png", photograph()) for index in range(6)]
    test = [saved(tmp_path / f"test/{index}.png", photograph()) for index in range(3)]
    with Image.open(seen[4]) as image:
        test.append(saved(tmp_path / "test/again.jpg", np.asarray(image), quality=95))
    similar = find_copies(test, seen, Cache(tmp_path / "cache"), None).similar
    assert not set(similar) & {0, 1, 2}
    if noise > 1:  # of less, JPEG leaves too little to tell by
        assert similar == (3,)


def test_copies_among_the_training_images_do_not_hide_one(tmp_path):
    seen = [saved(tmp_path / f"train/{index}.png", textured(0)) for index in range(2)]
    test = [saved(tmp_path / "again.jpg", textured(0), quality=90)]
    assert find_copies(test, seen, Cache(tmp_path / "cache"), None).similar == (0,)


def test_a_copy_is_found_among_more_images_than_are_compared_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.datasets.copies._CHUNK", 7)
    seen = [saved(tmp_path / f"train/{index}.png", textured(index)) for index in range(20)]
    test = [
        saved(tmp_path / f"test/{index}.jpg", textured(index), quality=90)
        for index in (100, 19, 3, *range(101, 108), 8)
    ]
    assert find_copies(test, seen, Cache(tmp_path / "cache"), None).similar == (1, 2, 10)


def test_nothing_seen_nothing_copied(tmp_path):
    image = saved(tmp_path / "a.png", textured(0))
    assert find_copies([image], [], Cache(tmp_path), None).identical == ()
    assert find_copies([], [image], Cache(tmp_path), None).identical == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"demo/{scenario}" for scenario in DEMO_SCENARIOS])
def test_demo_images_are_all_different(name):
    (scenario,) = select_scenarios(name, None, Cache(default_cache_directory()))  # where it is made once
    assert take_notes(scenario).warning is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvtec_ad/pill", "surface/magnetic_tile"])
def test_real_images_are_no_copies(tmp_path, name):
    if "BENCH_DATA" not in os.environ:
        pytest.skip("needs real images: set BENCH_DATA")
    cache = Cache(tmp_path)
    (scenario,) = select_scenarios(name, Path(os.environ["BENCH_DATA"]), cache)
    copies = find_copies([image.path for image in scenario.test], scenario.train, cache, bit_depth(scenario))
    assert (copies.identical, copies.similar) == ((), ())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvtec_ad/pill", "surface/magnetic_tile"])
@pytest.mark.parametrize("quality", [75, 90])
def test_real_images_saved_again_are_found(tmp_path, name, quality):
    if "BENCH_DATA" not in os.environ:
        pytest.skip("needs real images: set BENCH_DATA")
    cache = Cache(tmp_path)
    (scenario,) = select_scenarios(name, Path(os.environ["BENCH_DATA"]), cache)
    seen = scenario.train[:40]
    test = []
    for index, path in enumerate(seen[:12]):
        with Image.open(path) as image:
            test.append(saved(tmp_path / f"again/{index}.jpg", np.asarray(image.convert("RGB")), quality=quality))
    copies = find_copies(test, seen, cache, None)
    assert copies.similar == tuple(range(12))
