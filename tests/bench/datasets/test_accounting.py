"""Every file in a scenario's folder is used, known to be of no use, or named."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from test_scenario_selection import scenario

from bench.datasets.accounting import IMAGE_SUFFIXES
from bench.datasets.cache import Cache
from bench.datasets.scenario import Scenario
from bench.datasets.selection import select_scenarios
from bench.errors import DataError

PLACES = ("train/good/0", "train/good/1", "test/good/0", "test/bad/0", "ground_truth/bad/0_mask")


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return scenario(tmp_path / "own/part", *PLACES)


def read(folder: Path) -> Scenario:
    (found,) = select_scenarios("own", folder.parents[1], Cache(folder, enabled=False))
    return found


def put(part: Path, place: str) -> None:
    path = part / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".txt", ".md", ".pdf", ".db", ".ini", ".json", ".raw", ".DS_Store", ".html", ""):
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
        "licence_visa.pdf", "Read Me.html", "icon\r",
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


@pytest.mark.parametrize("suffix", ["webp", "bmp", "TIF", "jpeg", "gif", "j2k", "pcx"])
def test_every_common_format_is_an_image(part: Path, suffix: str) -> None:
    put(part, f"train/good/2.{suffix}")
    assert len(read(part).train) == 3


def test_pillow_reads_every_format_of_an_image() -> None:
    assert set(Image.registered_extensions()) >= IMAGE_SUFFIXES


@pytest.mark.parametrize("name", ["license_plate", "licence", "license.plate", "readme_label", "README", "changelog 2"])
def test_an_image_is_no_licence(part: Path, name: str) -> None:
    put(part, f"train/good/{name}.png")
    found = read(part)
    assert (len(found.train), found.notes) == (3, ())


@pytest.mark.parametrize("name", ["license plate", "icon", "copying_fault"])
def test_a_folder_of_images_is_no_licence(part: Path, name: str) -> None:
    put(part, f"test/{name}/5.png")
    put(part, f"ground_truth/{name}/5.png")
    assert [image.name for image in read(part).test] == sorted(["test/bad/0", "test/good/0", f"test/{name}/5"])


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


def test_a_link_to_itself_is_an_error(part: Path) -> None:
    (part / "train/good/2.png").symlink_to("2.png")
    with pytest.raises(DataError, match=r"train/good/2\.png cannot be reached: "):
        read(part).check_test()


@pytest.mark.parametrize("place", ["", "train", "test/bad", "ground_truth/bad", "more"])
@pytest.mark.parametrize("mode", [0, 0o400])
def test_a_folder_that_may_not_be_looked_into(users_folder: Path, place: str, mode: int) -> None:
    part = scenario(users_folder / "own/part", *PLACES)
    scenario(users_folder / "own/other")
    put(part, "more/0.png")
    (part / place).chmod(mode)
    other, locked = select_scenarios("own", users_folder, Cache(part, enabled=False))
    other.check()
    with pytest.raises(DataError, match=r"own/part must be mended: .*Permission denied"):
        locked.check_test()


@pytest.mark.parametrize(
    ("places", "example"),
    [
        (["ground_truth/scratches/0_mask"], "scratches/0_mask.png"),
        (["ground_truth/bad/7"], "bad/7.png"),
        (["ground_truth/0_mask"], "0_mask.png"),
        (["ground_truth/scratches/0/000"], "scratches/0/000.png"),
        (["ground_truth/good/0", "ground_truth/bad/x/000"], "bad/x/000.png"),
    ],
)
def test_masks_of_no_test_image_are_not_labels_without_pixels(tmp_path: Path, places: list[str], example: str) -> None:
    part = scenario(tmp_path / "own/part", *PLACES[:-1], *places)
    expected = rf"no mask in ground_truth, such as ground_truth/{example}, .*: expected ground_truth/bad/0_mask\.png"
    with pytest.raises(DataError, match=expected):
        read(part).check_test()


@pytest.mark.parametrize("places", [[], ["ground_truth/good/0"]])
def test_without_masks_of_anomalous_images_labels_are_of_images(tmp_path: Path, places: list[str]) -> None:
    found = read(scenario(tmp_path / "own/part", *PLACES[:-1], *places))
    found.check_test()
    assert not found.pixel_labels
