"""Copies of published collections, from the data root to metrics."""

import numpy as np
import published_copies as copies
import pytest
from PIL import Image

from bench import api
from bench.datasets.cache import Cache
from bench.datasets.inventory import take_inventory
from bench.datasets.selection import select_scenarios

FOLDERS = {
    "VisA_20220922": copies.visa,
    "KolektorSDD": copies.kolektor_sdd,
    "ksdd2": copies.kolektor_sdd2,
    "DAGM_KaggleUpload": copies.dagm,
    "Real-IAD": copies.real_iad,
    "elpv": copies.elpv,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, copy in FOLDERS.items():
        copy(folder / name)
    return folder


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def test_all_are_found_under_their_names(root, cache):
    inventory = take_inventory(root)
    assert inventory.passed_over == ()
    assert [found.collection.name for found in inventory.collections] == [
        *("dagm", "kolektor_sdd", "real_iad", "visa", "elpv", "kolektor_sdd2"),
    ]
    scenarios = select_scenarios("all", root, cache)
    assert [scenario.id for scenario in scenarios] == [
        *("dagm/Class1", "dagm/Class2", "dagm/Class10", "kolektor_sdd/kolektor_sdd"),
        *("real_iad/audiojack", "real_iad/usb", "visa/candle", "visa/pcb1"),
        *("elpv/mono", "elpv/poly", "kolektor_sdd2/kolektor_sdd2"),
    ]
    for scenario in scenarios:
        scenario.check()
        assert scenario.pixel_labels == (scenario.collection.name != "elpv")
        assert len(scenario.fingerprint) == 64


def test_a_layout_of_one_collection_is_known_under_any_folder_name(root, tmp_path, cache):
    for name in FOLDERS:
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / f"mine/my {name}").symlink_to(root / name)
    found = take_inventory(tmp_path / "mine").collections
    assert {each.collection.name for each in found} == {
        *("dagm", "elpv", "kolektor_sdd", "kolektor_sdd2", "real_iad", "visa"),
    }


@pytest.mark.parametrize("junk", [".DS_Store", "Thumbs.db", "._0001.PNG", "license.txt", "README.md"])
def test_what_archives_leave_behind_is_not_mentioned(tmp_path, cache, junk):
    for name, copy in FOLDERS.items():
        for place in [path for path in copy(tmp_path / name).rglob("*") if path.is_dir()]:
            (place / junk).write_bytes(b"")
    for scenario in select_scenarios("all", tmp_path, cache):
        assert not [note for note in scenario.notes if junk in note]
        assert scenario.problems == ()


def test_a_file_that_nothing_speaks_of_is_noted(tmp_path, cache):
    for name, copy in FOLDERS.items():
        folder = copy(tmp_path / name)
        place = next(path.parent for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".png"))
        (place / "sketch.psd").write_bytes(b"")
        scenario = select_scenarios(name, tmp_path, cache)[0]
        assert any("sketch.psd" in note for note in scenario.notes), name


def perfect_map(image):
    """The mask itself; without any, what its label says."""
    if not image.masks:
        return np.full(copies.SIZE, float(image.anomalous), dtype=np.float32)
    with Image.open(image.masks[0]) as mask:
        return (np.asarray(mask.convert("L")) > 0).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_perfect_maps_are_perfect(root, tmp_path, cache, name):
    for scenario in select_scenarios(name, root, cache):
        for image in scenario.test:
            path = tmp_path / "maps" / scenario.name / f"{image.name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, perfect_map(image))
    records = api.evaluate(
        tmp_path / "maps", name="perfect", datasets=name, data_root=root, out=tmp_path / "out", say=lambda _: None
    )
    assert [record.failure for record in records] == [None] * len(records)
    for record in records:
        assert record.metrics["image_au_roc"] == 1.0
        if name == "elpv":
            assert record.metrics.get("au_pro@0.3") is None
        else:
            assert record.metrics["au_pro@0.3"] == 1.0
            assert record.metrics["pixel_average_precision"] == 1.0
