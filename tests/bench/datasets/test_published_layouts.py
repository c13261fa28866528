"""Each published layout is read from a generated copy, and what breaks in it is named."""

import json

import published_copies as copies
import pytest

from bench.datasets.cache import Cache
from bench.datasets.layouts import dagm, elpv, kolektor_sdd, kolektor_sdd2, real_iad, visa
from bench.errors import DataError


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def names(scenario):
    return [image.name for image in scenario.test]


def files(paths, folder):
    return [str(path.relative_to(folder)) for path in paths]


def test_visa_is_read_by_its_split_file(tmp_path, cache):
    folder = copies.visa(tmp_path / "VisA_20220922")
    assert visa.LAYOUT.scenarios(folder) == ["candle", "pcb1"]
    scenario = visa.LAYOUT.read(folder, "candle", cache)
    assert scenario.id == "visa/candle"
    assert files(scenario.train, folder) == [f"candle/Data/Images/Normal/000{index}.JPG" for index in range(3)]
    assert names(scenario) == ["test/good/0003", "test/good/0004", "test/bad/000", "test/bad/001"]
    assert files(scenario.test[2].masks, folder) == ["candle/Data/Masks/Anomaly/000.png"]
    assert scenario.mask_rule == "nonzero"
    assert (scenario.notes, scenario.problems) == ((), ())
    assert scenario.note == "incomplete: 3 of 900 train, 2 of 100 normal test, 2 of 100 anomalous test"


def test_a_lost_image_of_a_split_file_is_a_problem(tmp_path, cache):
    folder = copies.visa(tmp_path / "visa")
    lost = folder / "candle/Data/Images/Normal/0001.JPG"
    lost.unlink()
    assert visa.LAYOUT.read(folder, "candle", cache).problems == (f"{lost} is missing",)
    assert visa.LAYOUT.read(folder, "pcb1", cache).problems == ()


def test_a_broken_split_file_is_named_with_line_and_column(tmp_path, cache):
    folder = copies.visa(tmp_path / "visa")
    split = folder / "split_csv/1cls.csv"
    text = split.read_text()
    split.write_text(text.replace("candle,test,normal", "candle,tested,normal", 1))
    with pytest.raises(DataError, match=r"1cls\.csv: line 5, column split: 'tested' is neither train nor test"):
        visa.LAYOUT.read(folder, "candle", cache)
    split.write_text(text.replace("candle,test,anomaly", "candle,test,Anomalous", 1))
    with pytest.raises(DataError, match="line 7, column label: 'Anomalous' is neither normal nor anomaly"):
        visa.LAYOUT.read(folder, "candle", cache)
    split.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(DataError, match=r"1cls\.csv lists no image of candle"):
        visa.LAYOUT.read(folder, "candle", cache)
    split.unlink()
    with pytest.raises(DataError, match=r"has no split_csv/1cls\.csv"):
        visa.LAYOUT.read(folder, "candle", cache)


def test_visa_leaves_out_anomalous_training_images_and_says_so(tmp_path, cache):
    folder = copies.visa(tmp_path / "visa")
    split = folder / "split_csv/1cls.csv"
    split.write_text(split.read_text().replace("candle,test,anomaly", "candle,train,anomaly", 1))
    scenario = visa.LAYOUT.read(folder, "candle", cache)
    assert (len(scenario.train), names(scenario)[2:]) == (3, ["test/bad/001"])
    assert scenario.notes == ("1 training image with a defect left out: only normal ones train",)


def test_kolektor_sdd_tests_all_defects_and_every_fifth_item(tmp_path, cache):
    folder = copies.kolektor_sdd(tmp_path / "KolektorSDD")
    assert kolektor_sdd.LAYOUT.scenarios(folder) == ["kolektor_sdd"]
    scenario = kolektor_sdd.LAYOUT.read(folder, "kolektor_sdd", cache)
    assert scenario.id == "kolektor_sdd/kolektor_sdd"
    assert [image.name for image in scenario.test if image.anomalous] == [
        f"test/defect/kos{item:02}_Part0" for item in (1, 3, 5, 7, 9)
    ]
    normal = [image.name for image in scenario.test if not image.anomalous]
    assert normal == [f"test/good/kos05_Part{part}" for part in (1, 2, 3)] + [
        f"test/good/kos10_Part{part}" for part in range(4)
    ]
    assert len(scenario.train) == 40 - 5 - 7
    assert not {path.parent.name for path in scenario.train} & {"kos05", "kos10"}
    assert (scenario.notes, scenario.problems, scenario.mask_rule) == ((), (), "nonzero")


def test_kolektor_sdd_needs_every_mask(tmp_path, cache):
    folder = copies.kolektor_sdd(tmp_path / "KolektorSDD")
    (folder / "kos02/Part3_label.bmp").unlink()
    (problem,) = kolektor_sdd.LAYOUT.read(folder, "kolektor_sdd", cache).problems
    assert "kos02/Part3_label.bmp is missing, which says whether" in problem


def test_kolektor_sdd2_leaves_out_defective_training_images_and_copies(tmp_path, cache):
    folder = copies.kolektor_sdd2(tmp_path / "KolektorSDD2")
    assert kolektor_sdd2.LAYOUT.scenarios(folder) == ["kolektor_sdd2"]
    scenario = kolektor_sdd2.LAYOUT.read(folder, "kolektor_sdd2", cache)
    assert [path.stem for path in scenario.train] == ["10000", "10002", "10003", "10004", "10005"]
    assert names(scenario) == ["test/good/20000", "test/defect/20001", "test/good/20002"]
    assert files(scenario.test[1].masks, folder) == ["test/20001_GT.png"]
    assert scenario.test[0].masks == ()
    assert scenario.notes == (
        "1 training image with a defect left out: only normal ones train",
        "2 files named (copy) left out",
    )


def test_what_masks_mark_is_remembered_until_a_mask_changes(tmp_path, cache):
    folder = copies.kolektor_sdd2(tmp_path / "KolektorSDD2")
    before = kolektor_sdd2.LAYOUT.read(folder, "kolektor_sdd2", cache)
    (entry,) = (cache.directory / "marked").iterdir()
    assert kolektor_sdd2.LAYOUT.read(folder, "kolektor_sdd2", cache).test == before.test
    entry.write_text("[")  # cut off
    assert kolektor_sdd2.LAYOUT.read(folder, "kolektor_sdd2", cache).test == before.test
    copies.save_mask(folder / "test/20002_GT.png", 1)
    assert names(kolektor_sdd2.LAYOUT.read(folder, "kolektor_sdd2", cache))[2] == "test/defect/20002"


def test_dagm_is_read_by_its_masks(tmp_path, cache):
    folder = copies.dagm(tmp_path / "DAGM_KaggleUpload")
    assert dagm.LAYOUT.scenarios(folder) == ["Class1", "Class2", "Class10"]
    scenario = dagm.LAYOUT.read(folder, "Class2", cache)
    assert scenario.id == "dagm/Class2"
    assert [path.name for path in scenario.train] == ["0576.PNG", "0578.PNG", "0579.PNG"]
    assert names(scenario) == ["test/good/0001", "test/defect/0002", "test/good/0003"]
    assert files(scenario.test[1].masks, folder) == ["Class2/Test/Label/0002_label.PNG"]
    assert scenario.notes == ("1 training image with a defect left out: only normal ones train",)
    assert scenario.problems == ()


def test_dagm_takes_no_image_for_normal_because_its_mask_is_lost(tmp_path, cache):
    folder = copies.dagm(tmp_path / "dagm")
    (folder / "Class1/Test/Label/0002_label.PNG").unlink()
    (problem,) = dagm.LAYOUT.read(folder, "Class1", cache).problems
    assert problem.endswith("says that 0002.PNG shows a defect, but 0002_label.PNG is missing")
    listed = folder / "Class2/Train/Label/Labels.txt"
    listed.write_text(listed.read_text().replace("2\t1\t", "2\tx\t"))
    with pytest.raises(DataError, match=r"Labels\.txt: line 3, column 2: 'x' is neither 0 nor 1"):
        dagm.LAYOUT.read(folder, "Class2", cache)


def test_real_iad_is_read_by_its_split_and_knows_the_views(tmp_path, cache):
    folder = copies.real_iad(tmp_path / "Real-IAD")
    assert real_iad.LAYOUT.scenarios(folder) == ["audiojack", "usb"]
    scenario = real_iad.LAYOUT.read(folder, "audiojack", cache)
    assert scenario.id == "real_iad/audiojack"
    assert len(scenario.train) == 5
    assert [(image.defect, image.condition) for image in scenario.test] == [
        *(("good", f"C{view}") for view in range(1, 6)),
        *(("AK" if view < 4 else "good", f"C{view}") for view in range(1, 6)),
    ]
    assert all(bool(image.masks) == image.anomalous for image in scenario.test)
    assert (scenario.notes, scenario.problems) == ((), ())


def test_real_iad_says_which_size_and_split_it_took(tmp_path, cache):
    folder = copies.real_iad(tmp_path / "Real-IAD")
    (folder / "realiad_256/audiojack").mkdir(parents=True)
    (folder / "realiad_jsons").rename(folder / "realiad_jsons_sv")
    assert real_iad.LAYOUT.read(folder, "usb", cache).notes == (
        "images of realiad_1024, not of realiad_256",
        "the split of realiad_jsons_sv: one view of five",
    )


def test_a_broken_split_of_real_iad_is_named(tmp_path, cache):
    folder = copies.real_iad(tmp_path / "Real-IAD")
    split = folder / "realiad_jsons/usb.json"
    document = json.loads(split.read_text())
    split.write_text(split.read_text()[:-30])
    with pytest.raises(DataError, match=r"usb\.json: line \d+, column \d+: "):
        real_iad.LAYOUT.read(folder, "usb", cache)
    del document["test"][3]["mask_path"]
    split.write_text(json.dumps(document))
    with pytest.raises(DataError, match="entry 4 of test lacks one of anomaly_class, image_path, mask_path"):
        real_iad.LAYOUT.read(folder, "usb", cache)
    del document["meta"]["normal_class"]
    split.write_text(json.dumps(document))
    with pytest.raises(DataError, match="expected meta with normal_class"):
        real_iad.LAYOUT.read(folder, "usb", cache)


@pytest.mark.parametrize("inside", ["", "elpv_dataset/data", "src/elpv_dataset/data"])
def test_elpv_splits_the_functional_cells(tmp_path, cache, inside):
    folder = tmp_path / "elpv"
    copies.elpv(folder / inside)
    assert elpv.LAYOUT.scenarios(folder) == ["mono", "poly"]
    scenario = elpv.LAYOUT.read(folder, "mono", cache)
    assert scenario.id == "elpv/mono"
    assert len(scenario.train) == 4
    assert sorted(image.defect for image in scenario.test) == [
        *["defective"] * 2, *["good"] * 2, *["probably_defective"] * 2
    ]  # fmt: skip
    assert not {image.path for image in scenario.test} & set(scenario.train)
    assert (scenario.notes, scenario.problems) == ((), ())
    assert all(image.masks == () for image in scenario.test)
    again = elpv.LAYOUT.read(folder, "mono", cache)
    assert (again.train, again.test) == (scenario.train, scenario.test)


def test_the_split_of_elpv_is_fixed(tmp_path, cache):
    """It depends on the names alone: another rule would silently make other numbers."""
    scenario = elpv.LAYOUT.read(copies.elpv(tmp_path / "elpv"), "poly", cache)
    assert [path.stem for path in scenario.train] == ["cell0011", "cell0012", "cell0013", "cell0015"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/cell0001.png  1.0", "line 2 has 2 columns"),
        ("images/cell0001.png  high  mono", "line 2, column 2: 'high' is no probability"),
        ("images/cell0001.png  1.5  mono", "line 2, column 2: '1.5' is no probability"),
        ("images/cell0001.png  1.0  multi", "line 2, column 3: 'multi' is neither mono nor poly"),
    ],
)
def test_a_broken_list_of_elpv_is_named(tmp_path, cache, line, message):
    folder = copies.elpv(tmp_path / "elpv")
    labels = folder / "labels.csv"
    first, _, *rest = labels.read_text().splitlines()
    labels.write_text("\n".join([first, line, *rest]))
    with pytest.raises(DataError, match=message):
        elpv.LAYOUT.read(folder, "mono", cache)
