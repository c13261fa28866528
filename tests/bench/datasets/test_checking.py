import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.cli import app
from bench.datasets import catalogue as catalogue_module
from bench.datasets.cache import Cache
from bench.datasets.catalogue import KnownCollection, PublishedImages, known_collection
from bench.datasets.checking.check import check_collection, check_scenario
from bench.datasets.selection import select_scenarios
from bench.errors import DataError

SIZE = (48, 64)
PUBLISHED = PublishedImages(train=12, test_normal=3, test_anomalous=6, defects={"bent": 4, "cut": 2}, sizes=(SIZE,))


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def noise(seed, shape=(*SIZE, 3), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape).astype(dtype)


@pytest.fixture
def root(tmp_path):
    """A complete copy of the published collection below, in a scenario ``bolt``."""
    folder = tmp_path / "data" / "screws" / "bolt"
    seed = 0
    for part, count in (("train/good", 12), ("test/good", 3), ("test/bent", 4), ("test/cut", 2)):
        for index in range(count):
            write(folder / part / f"{index:03}.png", noise(seed := seed + 1))
            if part in ("test/bent", "test/cut"):
                mask = np.zeros(SIZE, np.uint8)
                mask[10 : 20 + index, 10:20] = 255
                write(folder / "ground_truth" / part[5:] / f"{index:03}_mask.png", mask)
    return tmp_path / "data"


@pytest.fixture
def known(monkeypatch):
    known = KnownCollection(
        name="screws",
        title="Screws",
        folders=frozenset({"screws"}),
        layout="screws",
        images={"bolt": PUBLISHED, "nail": PublishedImages()},
        citation="Smith 2020",
        page="https://example.org/screws",
    )
    monkeypatch.setattr(catalogue_module, "known_collections", lambda: (known,))
    return known


def check(root, name="screws/bolt"):
    (scenario,) = select_scenarios(name, root, Cache(root.parent / "cache"))
    return check_scenario(scenario)


def problems(checked):
    return {finding.kind: finding for finding in checked.findings if finding.problem}


def notes(checked):
    return {finding.kind: finding.text for finding in checked.findings if not finding.problem}


def test_a_complete_copy_is_good(root, known):
    checked = check(root)
    assert checked.good
    assert checked.findings == ()
    assert checked.compared_with == "Screws"


def test_own_data_without_contradictions_are_good(root):
    checked = check(root)
    assert (checked.good, checked.findings, checked.compared_with) == (True, (), "")


def plant(name):
    """A function that plants a defect, and what has to be found of it: kind, words, file."""

    def register(function):
        PLANTED[name] = function
        return function

    return register


PLANTED = {}


@plant("missing image")
def _(folder):
    (folder / "train/good/004.png").unlink()
    return "missing images", r"11 of 12 training images; between 000 and 011 1 number is missing", None


@plant("extra image")
def _(folder):
    write(folder / "train/good/012.png", noise(99))
    return "extra images", "13 of 12 training images", "train/good/012.png"


@plant("renamed file")
def _(folder):
    (folder / "train/good/004.png").rename(folder / "train/good/x.png")
    return "renamed files", "1 name unlike the others in the folder: train/good/x.png", "train/good/x.png"


@plant("another format")
def _(folder):
    path = folder / "train/good/004.png"
    Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()
    return "renamed files", "1 name unlike the others", "train/good/004.jpg"


@plant("renamed kind of defect")
def _(folder):
    for part in ("test", "ground_truth"):
        (folder / part / "cut").rename(folder / part / "torn")
    return "other kinds of defects", r"6 of 6 anomalous test images \(cut 0 of 2, torn 2 of 0\)", None


@plant("image of another size")
def _(folder):
    write(folder / "test/good/001.png", noise(1, (24, 32, 3)))
    return "other image sizes", "1 image of 24×32 pixels, published are 48×64", "test/good/001.png"


@plant("mask of another size")
def _(folder):
    write(folder / "ground_truth/cut/001_mask.png", np.full((24, 32), 255, np.uint8))
    return "masks of another size", "1 mask not of the image's size", "ground_truth/cut/001_mask.png"


@plant("missing mask")
def _(folder):
    (folder / "ground_truth/bent/002_mask.png").unlink()
    return "missing masks", "1 of 6 anomalous images have no ground truth", "ground_truth/bent/002_mask.png"


@plant("no masks at all")
def _(folder):
    shutil.rmtree(folder / "ground_truth")
    return "missing masks", "6 of 6 anomalous images have no ground truth", "ground_truth/bent/000_mask.png"


@plant("truncated image")
def _(folder):
    path = folder / "test/cut/000.png"
    path.write_bytes(path.read_bytes()[:-200])
    return "unreadable files", "1 file cannot be read", "test/cut/000.png"


@plant("flipped bits")
def _(folder):
    path = folder / "train/good/000.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return "unreadable files", "1 file cannot be read", "train/good/000.png"


@plant("damaged mask")
def _(folder):
    (folder / "ground_truth/cut/000_mask.png").write_bytes(b"no image")
    return "unreadable files", "1 file cannot be read", "ground_truth/cut/000_mask.png"


@plant("training image in the test set")
def _(folder):
    shutil.copy(folder / "train/good/003.png", folder / "test/good/002.png")
    return "duplicates across sets", r"train/good/003\.png = test/good/002\.png", "test/good/002.png"


@plant("another bit depth")
def _(folder):
    write(folder / "train/good/005.png", noise(5, SIZE, np.uint16))
    return "mixed bit depths", r"1 image of 16 bits among 20 of 8: train/good/005\.png", "train/good/005.png"


@plant("dangling link")
def _(folder):
    path = folder / "train/good/005.png"
    path.unlink()
    path.symlink_to(folder / "store/005.png")
    return "to be mended", r"train/good/005\.png is a link to \S+store/005\.png, which does not exist", None


@plant("folder in itself")
def _(folder):
    (folder / "test/good/more").symlink_to(folder / "test")
    return "to be mended", "is a link to a folder that contains it", None


@plant("two masks for one image")
def _(folder):
    write(folder / "ground_truth/cut/000.png", np.zeros(SIZE, np.uint8))
    return "to be mended", r"could each be the ground truth of cut/000", None


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_defect_is_found(name, root, known):
    kind, words, file = PLANTED[name](root / "screws/bolt")
    found = problems(check(root))
    assert set(found) == {kind}, found
    assert re.search(words, found[kind].text), found[kind].text
    assert file is None or file in found[kind].files
    assert found[kind].fix


@pytest.mark.parametrize("place", ["train/sketch.psd", "train/good/more/000.png", "ground_truth/cut/009_mask.png"])
def test_what_nothing_uses_is_named(root, place):
    write(root / "screws/bolt" / f"{place.rpartition('.')[0]}.png", np.zeros(SIZE, np.uint8))
    (root / "screws/bolt" / f"{place.rpartition('.')[0]}.png").rename(root / "screws/bolt" / place)
    checked = check(root)
    assert checked.good
    assert place.rpartition("/")[2] in notes(checked)["left out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read anything")
def test_a_folder_that_cannot_be_read(root):
    folder = root / "screws/bolt/test/cut"
    folder.chmod(0)
    with pytest.raises(DataError, match=r"cannot list \S+test/cut"):
        check(root)
    folder.chmod(0o700)


def test_a_catalogue_that_contradicts_the_disk(root, known):
    known.images["bolt"] = PublishedImages(train=11, test_normal=3, test_anomalous=6, sizes=((100, 100),))
    found = problems(check(root))
    assert set(found) == {"extra images", "other image sizes"}
    assert found["other image sizes"].text.startswith("21 images of 48×64 pixels, published are 100×100")


def test_of_what_nobody_has_counted_nothing_is_missing(root, known):
    known.images["bolt"] = PublishedImages()
    checked = check(root)
    assert checked.good
    assert "not in the catalogue" in notes(checked)


def test_what_is_only_worth_knowing(root):
    folder = root / "screws/bolt"
    shutil.copy(folder / "train/good/003.png", folder / "train/good/012.png")
    write(folder / "ground_truth/cut/001_mask.png", np.zeros(SIZE, np.uint8))
    write(folder / "train/good/004.png", noise(5, SIZE))
    (folder / "train/good/005.png").rename(folder / "train/good/other.png")
    checked = check(root)
    assert checked.good
    found = notes(checked)
    assert found["duplicates"] == "1 image twice or more in one set: train/good/003.png = train/good/012.png"
    assert found["empty masks"] == "1 anomalous image whose mask marks nothing: test/cut/001.png"
    assert found["mixed colours"] == "images of several kinds: 21 RGB, 1 L"
    assert "other.png" in found["renamed files"]


def test_images_that_are_not_stored_upright(root):
    exif = Image.Exif()
    exif[274] = 6
    write(root / "screws/bolt/train/good/002.png", noise(3, (64, 48, 3)), exif=exif)
    checked = check(root)
    assert checked.good
    assert notes(checked)["turned images"].startswith("1 image turned as EXIF says")


def test_of_many_problems_the_first_are_shown_and_all_listed(root):
    for path in (root / "screws/bolt/train/good").iterdir():
        path.unlink()
        path.symlink_to(path.with_name("gone"))
    checked = check(root)
    found = [finding for finding in checked.findings if finding.kind == "to be mended"]
    assert len(found) == 6
    assert found[-1].text == "7 more of this kind"
    assert len(found[-1].files) == 7


def test_own_data_without_pixel_labels_are_good(root):
    shutil.rmtree(root / "screws/bolt/ground_truth")
    checked = check(root)
    assert checked.good
    assert "pixel metrics are undefined" in notes(checked)["no masks"]


def test_a_scenario_that_nobody_published(root, known):
    (root / "screws/bolt").rename(root / "screws/mine")
    checked = check(root, "screws/mine")
    assert checked.good
    assert "Screws has no scenario mine" in notes(checked)["unknown scenario"]


def test_a_published_name_in_another_collection(root, known):
    (root / "screws").rename(root / "own")
    checked = check(root, "own/bolt")
    assert checked.good
    assert "Screws has a scenario bolt" in notes(checked)["familiar name"]


def test_scenarios_that_are_missing(known, tmp_path):
    lacking = check_collection(known, tmp_path, ["bolt"])
    assert [finding.text for finding in lacking.findings] == ["1 of 2 scenarios; nail missing"]
    assert not lacking.good
    assert check_collection(known, tmp_path, ["nail", "bolt"]) is None


def run(*arguments):
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)], env={"COLUMNS": "100"})


def test_the_command(root):
    done = run("--data-root", root)
    assert done.exit_code == 0, done.output
    assert "screws/bolt, not in the catalogue: good" in done.output
    (root / "screws/bolt/test/cut/000.png").write_bytes(b"")
    done = run("screws", "--data-root", root)
    assert done.exit_code == 3
    assert "screws/bolt, not in the catalogue: 1 problem" in done.output
    assert "unreadable files: 1 file cannot be read (test/cut/000.png:" in done.output


def test_a_program_reads_the_same(root):
    (root / "screws/bolt/ground_truth/bent/002_mask.png").unlink()
    done = run("--data-root", root, "--json")
    assert done.exit_code == 3
    (checked,) = json.loads(done.output)
    assert (checked["name"], checked["good"]) == ("screws/bolt", False)
    (finding,) = checked["findings"]
    assert finding["kind"] == "missing masks"
    assert finding["files"] == ["ground_truth/bent/002_mask.png"]


def test_a_collection_named_as_a_whole_is_complete_or_not(root):
    (root / "screws").rename(root / "mvtec_ad")
    (root / "mvtec_ad/bolt").rename(root / "mvtec_ad/pill")
    done = run("mvtec_ad", "--data-root", root)
    assert done.exit_code == 3
    assert "1 of 15 scenarios; bottle, cable, capsule and 11 more missing" in done.output
    assert "12 of 267 training images" in done.output
    assert known_collection("mvtec_ad").page in done.output
    assert "scenarios" not in run("mvtec_ad/pill", "--data-root", root).output


def test_masks_whose_values_mean_nothing_by_themselves(root):
    for index, value in enumerate((1, 2)):
        mask = np.zeros(SIZE, np.uint8)
        mask[10:20, 10:20] = value
        write(root / f"screws/bolt/ground_truth/cut/{index:03}_mask.png", mask)
    done = run("--data-root", root)
    assert done.exit_code == 3
    assert "masks without meaning" in done.output
    assert "--masks" in done.output
    assert run("--data-root", root, "--masks", "nonzero").exit_code == 0
