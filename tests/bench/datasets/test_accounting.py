"""Every file in a scenario's folder is used, known to be of no use, or named."""

import os
import shutil
from pathlib import Path

import pytest
from test_scenario_selection import scenario

from bench.datasets.cache import Cache
from bench.datasets.scenario import Scenario
from bench.datasets.selection import select_scenarios
from bench.errors import DataError


@pytest.fixture
def part(tmp_path: Path) -> Path:
    places = ["train/good/0", "train/good/1", "test/good/0", "test/bad/0", "ground_truth/bad/0_mask"]
    return scenario(tmp_path / "own/part", *places)


def read(folder: Path) -> Scenario:
    (found,) = select_scenarios("own", folder.parents[1], Cache(folder, enabled=False))
    return found


def put(part: Path, place: str) -> None:
    path = part / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".txt", ".md", ".pdf", ".db", ".ini", ".json", ".raw", ".DS_Store", ""):
        path.write_bytes(b"text")
    else:
        shutil.copy(part / "train/good/0.png", path)


def test_nothing_is_said_where_everything_is_used(part: Path) -> None:
    found = read(part)
    assert (found.notes, found.problems) == ((), ())
    assert len(found.train) == 2
    assert len(found.test) == 2


@pytest.mark.parametrize(
    "place",
    [
        "train/good/.DS_Store", "train/good/._0.png", "test/bad/Thumbs.db", "test/good/desktop.ini",
        "__MACOSX/train/good/0.png", "license.txt", "LICENSE", "readme.txt", "README.md", "test/readme.pdf",
    ],
)  # fmt: skip
def test_junk_is_passed_over(part: Path, place: str) -> None:
    put(part, place)
    found = read(part)
    assert (found.notes, found.problems, len(found.train)) == ((), (), 2)


@pytest.mark.parametrize(
    ("place", "note"),
    [
        ("train/good/more/0.png", "1 image in train/good/more left out: 0.png"),
        ("train/bad/0.png", "1 image in train/bad left out: 0.png"),
        ("test/0.png", "1 image in test left out: 0.png"),
        ("0.png", "1 image beside the folders left out: 0.png"),
        ("test/bad/0.raw", "1 file in test/bad left out: 0.raw"),
        ("notes.json", "1 file beside the folders left out: notes.json"),
        ("ground_truth/bad/7.png", "1 mask belonging to no test image left out, such as ground_truth/bad/7.png"),
        ("ground_truth/good/0_mask.png", "1 mask of normal images left out, such as ground_truth/good/0_mask.png"),
        ("ground_truth/scratch/0_mask.png", "1 image in ground_truth/scratch left out: 0_mask.png"),
    ],
)
def test_what_is_left_out_is_named(part: Path, place: str, note: str) -> None:
    put(part, place)
    found = read(part)
    assert found.notes == (note,)
    found.check()


def test_what_is_left_out_is_counted(part: Path) -> None:
    for index in range(12):
        put(part, f"test/bad/more/{index}.png")
    assert read(part).notes == ("12 images in test/bad/more left out, such as 0.png",)


@pytest.mark.parametrize("suffix", ["webp", "bmp", "TIF", "jpeg", "gif"])
def test_every_common_format_is_an_image(part: Path, suffix: str) -> None:
    put(part, f"train/good/2.{suffix}")
    assert len(read(part).train) == 3


@pytest.mark.parametrize("place", ["train/good/1", "test/good/0", "test/bad/0", "ground_truth/bad/0_mask"])
def test_a_link_to_nothing_is_an_error(part: Path, place: str) -> None:
    (part / f"{place}.png").unlink()
    (part / f"{place}.png").symlink_to(part / "gone.png")
    with pytest.raises(
        DataError, match=rf"must be mended: {place}\.png is a link to .*gone\.png, which does not exist"
    ):
        read(part).check_test()


@pytest.mark.parametrize("other", ["0.png", "0.bmp", "0_mask.tif"])
def test_two_masks_of_one_image_are_an_error(part: Path, other: str) -> None:
    put(part, f"ground_truth/bad/{other}")
    with pytest.raises(DataError, match="could each be the ground truth of bad/0") as caught:
        read(part).check_test()
    assert "0_mask.png" in str(caught.value)
    assert other in str(caught.value)


def test_many_problems_are_counted(part: Path) -> None:
    for index in range(5):
        (part / f"test/good/{index + 1}.png").symlink_to(part / "gone.png")
    with pytest.raises(DataError, match="; and 2 more"):
        read(part).check_test()


def test_links_are_followed_but_not_in_circles(part: Path, tmp_path: Path) -> None:
    scenario(tmp_path / "store", "10", "11")
    shutil.rmtree(part / "train/good")
    (part / "train/good").symlink_to(tmp_path / "store")
    assert [path.name for path in read(part).train] == ["10.png", "11.png"]
    (part / "test/bad/again").symlink_to(part)
    with pytest.raises(DataError, match="test/bad/again is a link to a folder that contains it"):
        read(part).check_test()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read anything")
def test_a_folder_that_may_not_be_listed(part: Path) -> None:
    put(part, "more/0.png")
    (part / "more").chmod(0)
    with pytest.raises(DataError, match="cannot list"):
        read(part).check_test()
