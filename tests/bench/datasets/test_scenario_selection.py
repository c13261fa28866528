"""A name is the name by which a thing is found."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.datasets.cache import Cache
from bench.datasets.selection import passed_over, select_scenarios, take_inventory
from bench.errors import UsageError


def scenario(folder: Path, *places: str) -> Path:
    for place in places or ("train/good/0", "train/good/1", "test/good/0", "test/bad/0"):
        path = folder / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    return folder


def ids(selection: str, root: Path) -> list[str]:
    return [found.id for found in select_scenarios(selection, root, Cache(root, enabled=False))]


@pytest.mark.parametrize("name", ["mvtec_ad/widget", "mvtec_ad_other/widget", "MVTec-AD/widget", "mvtec_ad_other"])
def test_a_scenario_that_nobody_published_is_found_by_every_name(tmp_path: Path, name: str) -> None:
    scenario(tmp_path / "MVTec-AD/widget")
    scenario(tmp_path / "MVTec-AD/pill")
    assert ids(name, tmp_path) == ["mvtec_ad_other/widget"]
    assert ids("mvtec_ad/pill", tmp_path) == ["mvtec_ad/pill"]
    for whole in ("mvtec_ad", "MVTec-AD"):
        assert ids(whole, tmp_path) == ["mvtec_ad/pill", "mvtec_ad_other/widget"]


@pytest.mark.parametrize("name", ["mvtec_anomaly_detection", "mvtec_ad", "all"])
def test_folders_as_downloaded(tmp_path: Path, name: str) -> None:
    scenario(tmp_path / "mvtec_anomaly_detection/bottle")
    assert ids(name, tmp_path) == ["mvtec_ad/bottle"]


@pytest.mark.parametrize("name", ["visa", "VisA_pytorch", "visa/candle", "all"])
def test_converted_visa(tmp_path: Path, name: str) -> None:
    scenario(tmp_path / "VisA_pytorch/1cls/candle")
    assert ids(name, tmp_path) == ["visa/candle"]
    assert ids("all", tmp_path / "VisA_pytorch") == ["visa/candle"]
    (found,) = take_inventory(tmp_path).collections
    assert found.coverage == "1 of 12 scenarios"


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("A, B/part, left", ["A, B/part, left"]),
        ("parts/x, A, B/part, left,parts/y", ["parts/x", "A, B/part, left", "parts/y"]),
        ("A, B", ["A, B/part, left", "A, B/part, right"]),
        ("parts/x,parts/y", ["parts/x", "parts/y"]),
    ],
)
def test_names_may_hold_commas(tmp_path: Path, selection: str, expected: list[str]) -> None:
    for name in ("A, B/part, left", "A, B/part, right", "parts/x", "parts/y"):
        scenario(tmp_path / name)
    assert ids(selection, tmp_path) == expected


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("typed", ["NFC", "NFD"])
def test_letters_with_accents_are_found_however_they_are_written(tmp_path: Path, stored: str, typed: str) -> None:
    scenario(tmp_path / unicodedata.normalize(stored, "Größe/Café"))
    assert len(ids(unicodedata.normalize(typed, "Größe/Café"), tmp_path)) == 1


def test_two_copies_matter_only_to_those_who_ask_for_them(tmp_path: Path) -> None:
    for name in ("mvtec_ad/pill", "MVTec-AD/pill", "own/part"):
        scenario(tmp_path / name)
    assert ids("own", tmp_path) == ["own/part"]
    assert len(take_inventory(tmp_path).collections) == 3
    assert ids("MVTec-AD", tmp_path) == ["mvtec_ad/pill"]
    for name in ("all", "mvtec_ad/pill,own/part"):
        if name == "all":
            with pytest.raises(UsageError, match="name one of them by its folder, MVTec-AD or mvtec_ad"):
                ids(name, tmp_path)
        else:
            assert ids(name, tmp_path) == ["mvtec_ad/pill", "own/part"]


def test_test_data_alone_can_be_found(tmp_path: Path) -> None:
    scenario(tmp_path / "own/part", "test/good/0", "test/bad/0")
    (found,) = select_scenarios("own", tmp_path, Cache(tmp_path, enabled=False))
    found.check_test()
    assert found.train == ()


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    scenario(tmp_path / "own/part")
    scenario(tmp_path / "puzzle", "first/second/0", "first/third/0")
    (tmp_path / "mvtec_loco").mkdir()
    scenario(tmp_path / "photographs", "0")
    (tmp_path / "notes").mkdir()
    inventory = take_inventory(tmp_path)
    why = {over.folder.name: over.why for over in inventory.passed_over}
    assert set(why) == {"puzzle", "mvtec_loco"}
    assert "no layout reads" in why["puzzle"]
    assert "called like MVTec LOCO" in why["mvtec_loco"]
    assert [sentence.split()[0] for sentence in passed_over("all", tmp_path)] == [
        str(tmp_path / "mvtec_loco"),
        str(tmp_path / "puzzle"),
    ]
    assert passed_over("own", tmp_path) == ()
    with pytest.raises(UsageError, match=r"data set 'puzzle' cannot be used: .*no layout reads"):
        ids("puzzle", tmp_path)
    shutil.rmtree(tmp_path / "own")
    with pytest.raises(UsageError, match=r"no collection found under (.|\n)*\nnot read: .*puzzle holds images"):
        ids("all", tmp_path)


def test_a_link_to_the_data_root(tmp_path: Path) -> None:
    scenario(tmp_path / "data/own/part")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert ids("own", tmp_path / "link") == ["own/part"]
