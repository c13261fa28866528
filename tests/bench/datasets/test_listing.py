"""Images listed in Python."""

import published_copies as copies
import pytest

from bench.api import list_images
from bench.datasets.cache import Cache
from bench.datasets.layouts.listed import LAYOUT
from bench.errors import DataError, UsageError


@pytest.fixture
def rows(tmp_path):
    image = copies.save_image(tmp_path / "elsewhere/image.png")
    mask = copies.save_mask(tmp_path / "elsewhere/mask.png", 255)
    train = {"path": image, "split": "train", "label": "normal", "scenario": "left"}
    return [
        train,
        {**train, "scenario": "right"},
        {"path": image, "split": "test", "label": "anomalous", "mask": mask, "scenario": "left", "defect": None},
    ]


def test_a_list_of_rows_becomes_a_collection(rows, tmp_path, monkeypatch):
    assert list_images(rows, "parts", data_root=tmp_path / "data") == ["parts/left", "parts/right"]
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "other"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    relative = [{**row, "path": "image.png"} for row in rows[:1]]
    assert list_images(relative, "parts") == ["parts/left"]
    assert list_images(relative, "parts") == ["parts/left"]
    for root, anomalous in (("data", 1), ("other", 0)):
        scenario = LAYOUT.read(tmp_path / root / "parts", "left", Cache(tmp_path / "cache"))
        assert scenario.train == (tmp_path / "elsewhere/image.png",)
        assert len(scenario.test) == anomalous
        assert scenario.problems == ()


def test_what_makes_no_sense_is_refused_and_leaves_nothing(rows, tmp_path):
    folder = tmp_path / "data/parts"
    with pytest.raises(DataError, match="line 3, column label: 'fine'"):
        list_images([rows[0], {**rows[0], "label": "fine"}], "parts", data_root=tmp_path / "data")
    assert list(folder.iterdir()) == []
    with pytest.raises(UsageError, match="unknown column 'msk'; did you mean 'mask'"):
        list_images([{**rows[0], "msk": "x"}], "parts", data_root=tmp_path / "data")
    with pytest.raises(UsageError, match="no rows"):
        list_images([], "parts", data_root=tmp_path / "data")
    with pytest.raises(UsageError, match="is no name of a collection"):
        list_images(rows, "../parts", data_root=tmp_path / "data")


def test_a_folder_with_other_files_is_left_alone(rows, tmp_path):
    copies.save_image(tmp_path / "data/parts/bolt/train/good/000.png")
    with pytest.raises(UsageError, match="holds other files, such as bolt"):
        list_images(rows, "parts", data_root=tmp_path / "data")
