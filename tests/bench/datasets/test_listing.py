"""Images listed in Python."""

import os
import re
import subprocess
import sys
import textwrap

import published_copies as copies
import pytest
from cli_support import REPOSITORY

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


PAGE = REPOSITORY / "docs/collections.md"


def save_parts(folder):
    for index in range(4):
        copies.save_image(folder / f"images/{index:03}.png")
    copies.save_mask(folder / "masks/003.png", 255)
    return folder


def run_python(*arguments, folder, data_root):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "BENCH_DATA": str(data_root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_script_of_the_documentation_runs(tmp_path):
    (script,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "script.py").write_text(script)
    folder = save_parts(tmp_path / "elsewhere")
    assert "'au_pro@0.3': " in run_python("../script.py", folder=folder, data_root=tmp_path / "data")


@pytest.mark.slow
def test_the_table_of_the_documentation_is_run(tmp_path):
    text = PAGE.read_text()
    table = re.search(r"(?:^    .*\n)+", text[text.index("    path,split,label") :], re.MULTILINE)[0]
    (save_parts(tmp_path / "data/parts") / "scenarios.csv").write_text(textwrap.dedent(table))
    command = [
        "-m",
        "bench",
        "run",
        "--methods",
        "patchcore",
        "--preset",
        "embedded",
        "--datasets",
        "parts",
        "--dry-run",
    ]
    assert "1 of 1 cells to run" in run_python(*command, folder=tmp_path, data_root=tmp_path / "data")
