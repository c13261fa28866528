"""Defects planted in copies of published collections are found, in each layout."""

import re

import numpy as np
import published_copies as copies
import pytest
from cli_support import write_scenario
from PIL import Image

from bench.datasets.cache import Cache
from bench.datasets.checking.check import check_scenario
from bench.datasets.checking.finding import images_of
from bench.datasets.selection import select_scenarios


def mvtec_like(folder):
    write_scenario(folder / "bottle")
    return folder


COPIES = {
    "mvtec_ad": mvtec_like,
    "VisA_20220922": lambda folder: copies.visa(folder, ("candle",)),
    "KolektorSDD": copies.kolektor_sdd,
    "ksdd2": copies.kolektor_sdd2,
    "DAGM_KaggleUpload": lambda folder: copies.dagm(folder, ("Class1",)),
    "Real-IAD": lambda folder: copies.real_iad(folder, ("audiojack",)),
    "elpv": copies.elpv,
}
WITH_MASKS = sorted(set(COPIES) - {"elpv"})
SMALL = {"missing images", "missing scenarios", "other image sizes", "duplicates across sets"}
"""What is true of every copy: few images, of another size, some with the same noise."""

each = pytest.mark.parametrize("name", sorted(COPIES))


@pytest.fixture
def read(tmp_path):
    """Read a copy's first scenario again, after whatever has been done to its files."""
    cache = Cache(tmp_path / "cache")

    def read(name):
        if not (tmp_path / name).exists():
            COPIES[name](tmp_path / name)
        return select_scenarios(name, tmp_path, cache)[0]

    return read


def problems(scenario):
    return {finding.kind: finding for finding in check_scenario(scenario).findings if finding.problem}


def only(scenario):
    """The one problem that is not true of every copy."""
    found = {kind: finding for kind, finding in problems(scenario).items() if kind not in SMALL}
    assert len(found) == 1, found
    return next(iter(found.values()))


@each
def test_a_copy_lacks_nothing_but_images(name, read):
    checked = check_scenario(read(name))
    assert {finding.kind for finding in checked.findings if finding.problem} <= SMALL
    assert checked.compared_with


@each
def test_a_damaged_image(name, read):
    path = read(name).train[0]
    path.write_bytes(path.read_bytes()[:100])
    found = only(read(name))
    assert found.kind == "unreadable files"
    assert path.name in found.text


@each
def test_a_link_to_nothing(name, read):
    path = read(name).train[0]
    path.unlink()
    path.symlink_to(path.with_name("gone"))
    assert only(read(name)).kind == "to be mended"


@each
def test_another_bit_depth(name, read):
    path = images_of(read(name))[0]
    Image.fromarray(np.full(copies.SIZE, 1000, np.uint16)).save(path, format="png")
    assert only(read(name)).kind == "mixed bit depths"


@pytest.mark.parametrize("name", WITH_MASKS)
def test_a_mask_of_another_size(name, read):
    mask = next(mask for image in read(name).test for mask in image.masks)
    with Image.open(mask) as image:
        larger = image.resize((70, 60))
    larger.save(mask)
    found = only(read(name))
    assert found.kind == "masks of another size"
    assert mask.name in found.text


@pytest.mark.parametrize("name", ["mvtec_ad", "ksdd2", "DAGM_KaggleUpload"])
def test_an_image_fewer(name, read):
    before = len(read(name).train)
    read(name).train[0].unlink()
    found = [finding.text for finding in check_scenario(read(name)).findings if finding.kind == "missing images"]
    assert any(re.match(rf"{before - 1} of \d+ training images", text) for text in found), found


@pytest.mark.parametrize("name", ["VisA_20220922", "Real-IAD", "elpv"])
def test_an_image_fewer_than_a_list_names(name, read):
    path = read(name).train[0]
    path.unlink()
    found = only(read(name))
    assert path.name in found.text
