"""Test images that are training images are found, and other images of the same kind are not."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache
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


def test_nothing_seen_nothing_copied(tmp_path):
    image = saved(tmp_path / "a.png", textured(0))
    assert find_copies([image], [], Cache(tmp_path), None).identical == ()
    assert find_copies([], [image], Cache(tmp_path), None).identical == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"demo/{scenario}" for scenario in DEMO_SCENARIOS])
def test_demo_images_are_all_different(tmp_path, name):
    (scenario,) = select_scenarios(name, None, Cache(tmp_path))
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
