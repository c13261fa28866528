"""A name is the name by which a thing is found."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.datasets import accounting
from bench.datasets.accounting import first_image
from bench.datasets.cache import Cache
from bench.datasets.inventory import take_inventory
from bench.datasets.selection import passed_over, select_scenarios
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
    why = {over.path.name: over.why for over in inventory.passed_over}
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


def not_read(root: Path) -> dict[str, str]:
    return {over.path.relative_to(root).as_posix(): over.why for over in take_inventory(root).passed_over}


def test_what_lies_beside_scenarios_is_named(tmp_path: Path) -> None:
    scenario(tmp_path / "own/part")
    scenario(tmp_path / "own", "overview", "later", "crops/scratch/1", "a/b/c/d/e/f/too_deep")
    (tmp_path / "own/notes").mkdir()
    (tmp_path / "own/notes/read.txt").touch()
    (tmp_path / "own/readme.txt").touch()
    (tmp_path / "own/gone").symlink_to(tmp_path / "nowhere")
    assert ids("all", tmp_path) == ["own/part"]
    assert not_read(tmp_path) == {
        "own/later.png": "lies beside the scenarios, one of 2 images there",
        "own/crops": "holds images, and is no scenario in the layout of MVTec AD",
        "own/gone": f"is a link to {tmp_path / 'nowhere'}, which does not exist",
    }
    with pytest.raises(UsageError, match=r"data set 'own/gone' cannot be used: .*own/gone is a link to"):
        ids("own/gone", tmp_path)
    with pytest.raises(UsageError, match=r"unknown data set 'own/prat'; did you mean own/part"):
        ids("own/prat", tmp_path)


def test_what_lies_beside_scenarios_as_owners_publish_them_is_named(tmp_path: Path) -> None:
    scenario(tmp_path / "VisA_pytorch", "1cls/candle/train/good/0", "1cls/candle/test/good/0", "1cls/0", "2cls/x/0")
    scenario(tmp_path / "VisA", "candle/Data/Images/Normal/0")
    scenario(tmp_path / "VisA/widget")
    assert set(not_read(tmp_path)) == {"VisA/widget", "VisA_pytorch/1cls/0.png", "VisA_pytorch/2cls"}


def test_a_table_says_what_is_read_wherever_it_lies(tmp_path: Path) -> None:
    scenario(tmp_path / "own/pictures", "0", "1", "2")
    (tmp_path / "own/part").mkdir()
    rows = ("../pictures/0.png,train,good", "../pictures/1.png,train,good", "../pictures/2.png,test,good")
    (tmp_path / "own/part/scenario.csv").write_text("\n".join(("path,split,label", *rows)))
    assert ids("own", tmp_path) == ["own/part"]
    assert not_read(tmp_path) == {}


def test_a_scenario_among_collections_is_named(tmp_path: Path) -> None:
    scenario(tmp_path / "bottle")
    assert not_read(tmp_path) == {
        "bottle": "holds train and test itself: move it into the folder of a collection, such as own/bottle"
    }


def test_a_collection_on_a_disk_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "mvtec_ad").symlink_to(tmp_path / "unmounted")
    assert not_read(tmp_path) == {"mvtec_ad": f"is a link to {tmp_path / 'unmounted'}, which does not exist"}


def test_folders_without_end_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario(tmp_path / "puzzle", "a/b/0")
    for index in range(20):
        (tmp_path / f"puzzle/a/{index}.npy").touch()
    monkeypatch.setattr(accounting, "_LOOKED_AT", 23)
    assert first_image(tmp_path / "puzzle") == tmp_path / "puzzle/a/b/0.png"
    monkeypatch.setattr(accounting, "_LOOKED_AT", 15)
    assert first_image(tmp_path / "puzzle") is None


def test_one_name_for_two_folders_is_refused(tmp_path: Path) -> None:
    scenario(tmp_path / "mvtec_ad/pill")
    scenario(tmp_path / "MVTec-AD/pill")
    with pytest.raises(UsageError, match=r"both .*MVTec-AD/pill and .*mvtec_ad/pill are mvtec_ad/pill: select one"):
        ids("MVTec-AD/pill,mvtec_ad/pill", tmp_path)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/MVTec-AD").symlink_to(tmp_path / "mvtec_ad")
    (tmp_path / "mirror/mvtec_ad").symlink_to(tmp_path / "mvtec_ad")
    assert ids("MVTec-AD/pill,mvtec_ad/pill", tmp_path / "mirror") == ["mvtec_ad/pill"]


def test_a_folder_called_like_the_other_scenarios_of_a_collection(tmp_path: Path) -> None:
    scenario(tmp_path / "mvtec_ad/widget")
    scenario(tmp_path / "mvtec_ad_other/widget")
    with pytest.raises(
        UsageError, match=r"both .*mvtec_ad/widget and .*mvtec_ad_other/widget are mvtec_ad_other/widge"
    ):
        ids("all", tmp_path)


@pytest.mark.parametrize("place", ["Größe/part", "own/Café"])
def test_names_that_differ_in_the_form_of_their_letters_only_are_one_name(tmp_path: Path, place: str) -> None:
    for form in ("NFC", "NFD"):
        scenario(tmp_path / unicodedata.normalize(form, place))
    with pytest.raises(UsageError, match=r"^both "):
        ids("all", tmp_path)


def test_names_in_records_are_composed(tmp_path: Path) -> None:
    scenario(tmp_path / unicodedata.normalize("NFD", "Größe/Café"))
    assert ids("all", tmp_path) == [unicodedata.normalize("NFC", "Größe/Café")]


@pytest.mark.parametrize("name", ["own", "own ", "own/part", "own /part", "own / part", " own /part /"])
def test_blanks_around_names(tmp_path: Path, name: str) -> None:
    scenario(tmp_path / "own /part")
    assert len(ids(name, tmp_path)) == 1


def test_names_that_differ_in_blanks_only_are_one_name(tmp_path: Path) -> None:
    scenario(tmp_path / "own/part")
    scenario(tmp_path / "own /part")
    with pytest.raises(UsageError, match="name one of them by its folder"):
        ids("own", tmp_path)


@pytest.mark.parametrize("selection", ["demo", "demo/coins"])
def test_a_collection_called_like_the_demo_is_not_shadowed(tmp_path: Path, selection: str) -> None:
    scenario(tmp_path / "demo/coins")
    scenario(tmp_path / "demo/part")
    assert ids("demo/part", tmp_path) == ["demo/part"]
    with pytest.raises(UsageError, match=rf"{selection} is what bench makes itself, and .*/demo is called so too"):
        ids(selection, tmp_path)


def test_a_name_too_long_for_a_folder_is_unknown(tmp_path: Path) -> None:
    scenario(tmp_path / "own/part")
    with pytest.raises(UsageError, match="unknown data set"):
        ids(f"own/{'x' * 300}", tmp_path)


def test_a_locked_folder_costs_itself_alone(users_folder: Path) -> None:
    for place in ("mvtec_ad/pill", "mvtec_ad/bottle", "own/part", "locked/part", "widgets/part"):
        scenario(users_folder / place)
    scenario(users_folder / "own/part/more/store")
    for link in ("linked", "own/linked"):
        (users_folder / link).symlink_to(users_folder / "own/part/more/store")
    for place in ("mvtec_ad/pill", "locked", "own/part/more"):
        (users_folder / place).chmod(0)
    inventory = take_inventory(users_folder)
    assert [found.folder.name for found in inventory.collections] == ["mvtec_ad", "own", "widgets"]
    assert not_read(users_folder) == {
        "linked": "cannot be reached: Permission denied",
        "locked": f"cannot be read: cannot list {users_folder / 'locked'}: Permission denied",
        "own/linked": "cannot be reached: Permission denied",
    }
    problems = {
        each.id: each.problems for each in select_scenarios("all", users_folder, Cache(users_folder, enabled=False))
    }
    assert problems == {
        "mvtec_ad/bottle": (),
        "mvtec_ad/pill": (f"cannot list {users_folder / 'mvtec_ad/pill'}: Permission denied",),
        "own/part": (f"cannot list {users_folder / 'own/part/more'}: Permission denied",),
        "widgets/part": (),
    }
    with pytest.raises(UsageError, match=r"'locked/part' cannot be used: .*Permission denied"):
        ids("locked/part", users_folder)


@pytest.mark.parametrize("name", ["real_iad", "kolektor_sdd2", "dagm", "elpv"])
def test_a_locked_collection_in_any_layout(users_folder: Path, name: str) -> None:
    scenario(users_folder / "own/part")
    (users_folder / name).mkdir(mode=0)
    assert ids("all", users_folder) == ["own/part"]
    assert not_read(users_folder)[name].startswith("cannot be read: cannot l")


def test_links_to_nothing_are_no_reason_to_leave_a_scenario_out(tmp_path: Path) -> None:
    scenario(tmp_path / "own/part")
    (tmp_path / "own/lost").mkdir()
    for split in ("train", "test"):
        (tmp_path / "own/lost" / split).symlink_to(tmp_path / "unmounted" / split)
    lost, _ = select_scenarios("own", tmp_path, Cache(tmp_path, enabled=False))
    assert len(lost.problems) == 2
