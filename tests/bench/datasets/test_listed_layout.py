"""Images that a table lists."""

import importlib.util

import pandas
import published_copies as copies
import pytest

from bench.datasets.cache import Cache
from bench.datasets.layouts.listed import LAYOUT
from bench.errors import DataError

HEADER = "path,split,label,mask,defect,condition"
ROWS = [
    "images/a0.png,train,normal,,,",
    "images/a1.png,train,good,,,",
    "images/a2.png,val,0,,,",
    "images/b0.png,test,normal,,,dark",
    "images/b1.png,test,anomalous,masks/b1.png,scratch,dark",
    "images/b2.png,test,1,masks/b2.png,,",
]


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    for name in ("a0", "a1", "a2", "b0", "b1", "b2"):
        copies.save_image(tmp_path / f"parts/images/{name}.png")
    for name in ("b1", "b2"):
        copies.save_mask(tmp_path / f"parts/masks/{name}.png", 255)
    return tmp_path / "parts"


def write(folder, *rows, header=HEADER, name="scenarios.csv"):
    (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def test_reads_one_scenario_of_its_collection(folder, cache):
    write(folder, *ROWS)
    assert LAYOUT.scenarios(folder) == ["parts"]
    scenario = LAYOUT.read(folder, "parts", cache)
    assert scenario.id == "parts/parts"
    assert [path.name for path in scenario.train] == ["a0.png", "a1.png"]
    assert [path.name for path in scenario.validation] == ["a2.png"]
    assert [(image.name, image.anomalous, image.condition) for image in scenario.test] == [
        ("test/good/b0", False, "dark"),
        ("test/scratch/b1", True, "dark"),
        ("test/bad/b2", True, ""),
    ]
    assert scenario.test[1].masks == (folder / "masks/b1.png",)
    assert (scenario.notes, scenario.problems) == ((), ())
    scenario.check()


def test_reads_several_scenarios_and_tables_of_their_own(folder, cache):
    write(
        folder, *(f"{row},left" for row in ROWS[:4]), *(f"{row},right" for row in ROWS[4:]), header=f"{HEADER},scenario"
    )
    (folder / "own").mkdir()
    write(folder / "own", "../images/a0.png,train,normal,,,", name="scenario.csv")
    assert LAYOUT.scenarios(folder) == ["left", "own", "right"]
    assert len(LAYOUT.read(folder, "left", cache).train) == 2
    assert len(LAYOUT.read(folder, "right", cache).test) == 2
    assert len(LAYOUT.read(folder, "own", cache).train) == 1
    (folder / "left").mkdir()
    write(folder / "left", "../images/a0.png,train,normal,,,", name="scenario.csv")
    with pytest.raises(DataError, match="list left: keep one"):
        LAYOUT.read(folder, "left", cache)


def test_reads_a_spreadsheet(folder, cache):
    text = "\n".join([HEADER.upper(), *ROWS]).replace(",", "; ")
    (folder / "scenarios.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    scenario = LAYOUT.read(folder, "parts", cache)
    assert (len(scenario.train), len(scenario.validation), len(scenario.test)) == (2, 1, 3)


def test_reads_parquet(folder, cache):
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    rows = [dict(zip(HEADER.split(","), row.split(","), strict=True)) for row in ROWS]
    pandas.DataFrame(rows).to_parquet(folder / "scenarios.parquet")
    assert len(LAYOUT.read(folder, "parts", cache).test) == 3


def test_names_what_parquet_needs(folder, cache):
    if importlib.util.find_spec("pyarrow"):
        pytest.skip("pyarrow is there")
    (folder / "scenarios.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="pip install pyarrow"):
        LAYOUT.scenarios(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("images/a0.png,training,normal,,,", "line 2, column split: 'training' is none of train, validation, test"),
        ("images/a0.png,train,fine,,,", "line 2, column label: 'fine' is neither normal"),
        (",train,normal,,,", "line 2, column path: the file's name is missing"),
        ("images/a0.png,test,bad,,good,", "line 2, column defect: 'good' is no kind of defect"),
    ],
)
def test_a_row_that_makes_no_sense_is_named(folder, cache, row, message):
    write(folder, row)
    with pytest.raises(DataError, match=message):
        LAYOUT.read(folder, "parts", cache)


def test_names_the_columns_there_are(folder):
    write(folder, "images/a0.png,train,normal", header="file,split,label")
    with pytest.raises(DataError, match="no column path; its columns are file, split, label"):
        LAYOUT.scenarios(folder)


def test_a_missing_file_is_a_problem(folder, cache):
    write(folder, *ROWS, "images/c.png,train,normal,,,", "images/b3.png,test,bad,masks/b3.png,,")
    copies.save_image(folder / "images/b3.png")
    assert LAYOUT.read(folder, "parts", cache).problems == (
        f"{folder / 'images/c.png'} is missing",
        f"{folder / 'masks/b3.png'} is missing",
    )


def test_only_normal_images_train(folder, cache):
    write(folder, *ROWS, "images/b2.png,train,anomalous,masks/b2.png,,")
    scenario = LAYOUT.read(folder, "parts", cache)
    assert len(scenario.train) == 2
    assert scenario.notes == ("1 training image with a defect left out: only normal ones train",)


def test_names_stay_apart(folder, cache):
    copies.save_image(folder / "more/b0.png")
    write(folder, *ROWS, "more/b0.png,test,normal,,,")
    scenario = LAYOUT.read(folder, "parts", cache)
    assert [image.name for image in scenario.test if not image.anomalous] == [
        "test/good/images_b0",
        "test/good/more_b0",
    ]


def test_without_masks_there_are_labels_of_images_only(folder, cache):
    write(folder, *(",".join(row.split(",")[:3]) for row in ROWS), header="path,split,label")
    assert all(image.masks == () for image in LAYOUT.read(folder, "parts", cache).test)


def test_two_tables_are_one_too_many(folder):
    write(folder, *ROWS)
    write(folder, *ROWS, name="scenarios.pq")
    with pytest.raises(DataError, match="keep one"):
        LAYOUT.scenarios(folder)


def test_a_table_in_the_folder_of_a_published_collection_is_none_of_its_scenarios(folder, cache):
    visa = folder.rename(folder.with_name("VisA"))
    write(visa, *ROWS)
    scenario = LAYOUT.read(visa, "VisA", cache)
    assert (scenario.id, scenario.note) == ("visa_other/VisA", "not a scenario of VisA")
