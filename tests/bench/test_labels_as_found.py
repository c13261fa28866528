"""Scenarios with the labels that people have: none of pixels, images of one kind, masks of several values."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import write_scenario
from PIL import Image
from rich.console import Console

from bench.datasets.cache import Cache
from bench.datasets.selection import select_scenarios
from bench.evaluation import evaluate_maps
from bench.keys import score_key
from bench.options import EvaluationOptions, RunOptions
from bench.run import run
from results.arrays import read_examples
from results.record import Record
from results.store import RunStore

NO_PIXELS = "there is no ground truth of pixels"
QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def write_loco(folder: Path) -> None:
    """The same in LOCO form: dents are structural anomalies, stains logical ones."""
    write_scenario(folder)
    for defect, half in (("dent", "structural_anomalies"), ("stain", "logical_anomalies")):
        (folder / "test" / defect).rename(folder / "test" / half)
        for index in range(2):
            mask = folder / "ground_truth" / half / f"{index:03}" / "000.png"
            mask.parent.mkdir(parents=True)
            (folder / "ground_truth" / defect / f"{index:03}_mask.png").rename(mask)
        (folder / "ground_truth" / defect).rmdir()
    (folder / "validation").mkdir()
    shutil.copytree(folder / "train/good", folder / "validation/good")
    rule = {"defect_name": "any", "pixel_value": 255, "saturation_threshold": 1.0, "relative_saturation": True}
    (folder / "defects_config.json").write_text(json.dumps([rule]))


def evaluated(folder: Path, **options: Any) -> Record:
    """The record of maps that are the pictures themselves, whose defects are brighter."""
    for path in sorted((folder / "data/parts/bolt/test").rglob("*.png")):
        target = folder / "maps/bolt/test" / path.parent.name / f"{path.stem}.npy"
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, np.asarray(Image.open(path).convert("L"), np.float32))
    given = {
        "maps": folder / "maps",
        "name": "pictures",
        "data_root": folder / "data",
        "out": folder / "out",
        **options,
    }
    assert evaluate_maps(EvaluationOptions(**given), QUIET) == 0
    (record,) = RunStore(given["out"]).records()
    return record


def reasons(record: Record, part: str) -> set[str]:
    """Why metrics whose name has this part have no value; of a half what names it is cut off."""
    return {
        why.removeprefix("logical: ") for name, why in record.undefined.items() if part in name and "@fpr" not in why
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "area"), [(write_scenario, "au_pro"), (write_loco, "au_spro")], ids=["plain", "loco"]
)
class TestLabels:
    """What is defined is given, and the rest has its reason."""

    def test_of_images_alone(self, tmp_path: Path, write: Callable[[Path], None], area: str) -> None:
        write(tmp_path / "data/parts/bolt")
        shutil.rmtree(tmp_path / "data/parts/bolt/ground_truth")
        record = evaluated(tmp_path)
        assert record.status == "ok"
        assert record.metrics["image_au_roc"] is not None
        assert reasons(record, f"{area}@") == {NO_PIXELS}
        examples = read_examples(RunStore(tmp_path / "out").cell_directory(record))
        assert {(example.name.startswith("test/good"), example.mask is None) for example in examples} == {
            (True, False),
            (False, True),
        }
        report = (tmp_path / "out/report/report.md").read_text()
        assert f"undefined: {NO_PIXELS}" in report.replace("bolt: ", "").replace("logical: ", "")

    def test_of_anomalous_images_alone(self, tmp_path: Path, write: Callable[[Path], None], area: str) -> None:
        write(tmp_path / "data/parts/bolt")
        shutil.rmtree(tmp_path / "data/parts/bolt/test/good")
        record = evaluated(tmp_path)
        assert record.metrics[f"{area}@0.05"] is not None
        assert reasons(record, "image_au_roc") == {"no image is normal"}

    def test_of_normal_images_alone(self, tmp_path: Path, write: Callable[[Path], None], area: str) -> None:
        write(tmp_path / "data/parts/bolt")
        shutil.rmtree(tmp_path / "data/parts/bolt/ground_truth")
        for folder in (tmp_path / "data/parts/bolt/test").iterdir():
            if folder.name != "good":
                shutil.rmtree(folder)
        record = evaluated(tmp_path)
        assert record.status == "ok"
        assert reasons(record, "image_au_roc") == {"no image is anomalous"}
        assert reasons(record, f"{area}@") <= {"no image is anomalous", "no image has a defect"}
        assert not any(value for name, value in record.metrics.items() if area in name)


def renumber(scenario: Path) -> None:
    """Give the defects of each kind a class number."""
    for mask in scenario.glob("ground_truth/*/*.png"):
        Image.fromarray(np.asarray(Image.open(mask)) // 255 * (1 if mask.parent.name == "dent" else 200)).save(mask)


@pytest.mark.slow
def test_what_masks_mean_is_told_and_noted(tmp_path: Path) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    renumber(tmp_path / "data/parts/bolt")
    record = evaluated(tmp_path, masks="nonzero")
    assert record.data is not None
    assert record.data.notes == ["every value but 0 of a mask marks a defect"]
    assert record.notes == []
    assert record.data.notes[0] in (tmp_path / "out/report/report.md").read_text()
    half = evaluated(tmp_path, masks="half", out=tmp_path / "half")
    assert half.key != record.key
    assert len(half.notes) == 2  # dents are not marked any more


@pytest.mark.slow
def test_maps_of_a_run_are_evaluated_by_the_rule_of_now(tmp_path: Path) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    options = RunOptions(
        methods=("patchcore",), datasets="parts", data_root=tmp_path / "data", out=tmp_path / "run",
        preset=("embedded",), device="cpu", keep_maps=True, masks="nonzero",
    )  # fmt: skip
    assert run(options, QUIET) == 0
    (ran,) = RunStore(tmp_path / "run").records()
    given = EvaluationOptions(maps=tmp_path / "run", data_root=tmp_path / "data", out=tmp_path / "out", masks="half")
    assert evaluate_maps(given, QUIET) == 0
    (record,) = RunStore(tmp_path / "out").records()
    assert ran.data is not None
    assert record.data is not None
    assert ran.data.notes == ["every value but 0 of a mask marks a defect"]
    assert record.data.notes == ["every value from half the range on of a mask marks a defect"]
    assert record.data.train == ran.data.train
    assert record.metrics == ran.metrics  # 0 and 255 mean the same by either rule


@pytest.mark.slow
def test_masks_that_look_exchanged_are_spoken_of_at_the_numbers(tmp_path: Path) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    for mask in (tmp_path / "data/parts/bolt").glob("ground_truth/*/*.png"):
        Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
    record = evaluated(tmp_path)
    assert record.data is not None
    assert record.data.note is not None
    assert "are black and white exchanged?" in record.data.note
    tables = (tmp_path / "out/report/report.md").read_text().split("## What the rows are")[0]
    assert "are black and white exchanged?" in tables


def test_the_rule_enters_the_key_and_spares_loco(tmp_path: Path) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    write_loco(tmp_path / "data/loco/box")
    cache = Cache(tmp_path / "cache")
    bolt, box = (select_scenarios(name, tmp_path / "data", cache, "half")[0] for name in ("parts/bolt", "loco/box"))
    assert (bolt.mask_rule, box.mask_rule) == ("half", "decided")
    assert score_key("maps", bolt) != score_key("maps", dataclasses.replace(bolt, mask_rule="decided"))
