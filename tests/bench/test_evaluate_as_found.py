"""``bench evaluate`` on folders as people have them: names, left-overs, copies and what one bad scenario costs."""

import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import write_scenario
from PIL import Image
from rich.console import Console

from bench.errors import UsageError
from bench.evaluation import evaluate_maps
from bench.options import EvaluationOptions
from results.record import Record
from results.store import RunStore

pytestmark = pytest.mark.slow
"""Every test evaluates and reports, some seconds each."""


@pytest.fixture(autouse=True)
def cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def write_maps(scenario: Path, folder: Path) -> None:
    """Maps that are 1 on the defects and 0 elsewhere."""
    for image in sorted(scenario.glob("test/*/*.png")):
        mask = scenario / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        array = np.asarray(Image.open(mask)) > 0 if mask.exists() else np.zeros((40, 48))
        path = folder / "test" / image.parent.name / f"{image.stem}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array.astype(np.float32))


def evaluated(folder: Path, code: int = 0, **options: Any) -> dict[str, Record]:
    """The newest record of each scenario."""
    given = {"maps": folder / "maps", "name": "perfect", "data_root": folder / "data", "out": folder / "out", **options}
    assert evaluate_maps(EvaluationOptions(**given), Console(quiet=True)) == code
    records = sorted(RunStore(given["out"]).records(), key=lambda record: record.created)
    return {f"{record.collection.name}/{record.scenario}": record for record in records}


def perfect(record: Record) -> bool:
    return record.status == "ok" and record.metrics["au_pro@0.3"] == record.metrics["pixel_average_precision"] == 1.0


def test_what_belongs_to_no_image_is_counted_in_the_record(tmp_path: Path) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    write_maps(tmp_path / "data/parts/bolt", tmp_path / "maps/bolt")
    more = tmp_path / "maps/bolt/test/dent/older/000.npy"
    more.parent.mkdir()
    shutil.copy(tmp_path / "maps/bolt/test/dent/000.npy", more)
    shutil.copy(more, tmp_path / "maps/bolt/test/good/009.npy")
    record = evaluated(tmp_path)["parts/bolt"]
    assert perfect(record)
    assert record.data is not None
    assert "2 maps belong to no test image and are left out, such as test/dent/older/000.npy" in record.data.notes


def test_what_a_mac_or_windows_leaves_behind_is_no_map(tmp_path: Path) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    write_maps(tmp_path / "data/parts/bolt", tmp_path / "maps/bolt")
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.npy", "._000.png", "._000_mask.png"):
            (folder / name).write_bytes(b"\0\5\26\7")
    for copied in ("data", "data/parts", "maps"):
        shutil.copytree(tmp_path / "data/parts/bolt/test", tmp_path / copied / "__MACOSX/bolt/test")
    record = evaluated(tmp_path)["parts/bolt"]
    assert perfect(record)
    assert record.data is not None
    assert not record.data.notes


@pytest.mark.parametrize(("datasets", "form"), [(None, "NFC"), ("A&B_100%/part [v2] #3, left", "NFD")])
def test_marks_commas_and_forms_of_unicode_are_part_of_a_name(tmp_path: Path, datasets: str | None, form: str) -> None:
    write_scenario(tmp_path / "data/A&B_100%/part [v2] #3, left")
    scenario = tmp_path / "data/A&B_100%/part [v2] #3, left"
    for kind in ("test", "ground_truth"):
        marked = unicodedata.normalize("NFD", "Öl | <b> $x^2_")
        (scenario / kind / "dent").rename(scenario / kind / marked)
    write_maps(scenario, tmp_path / "maps" / scenario.name)
    found = tmp_path / "maps" / scenario.name / "test" / unicodedata.normalize("NFD", "Öl | <b> $x^2_")
    found.rename(found.with_name(unicodedata.normalize(form, found.name)))
    records = evaluated(tmp_path, datasets=datasets, definitions="all")
    assert perfect(records["A&B_100%/part [v2] #3, left"])
    assert unicodedata.normalize("NFC", "test/Öl | <b> $x^2_/000") in [
        image.name for image in records["A&B_100%/part [v2] #3, left"].images
    ]


def test_a_scenario_that_cannot_be_evaluated_costs_only_itself(tmp_path: Path) -> None:
    for name in ("bolt", "nut", "washer"):
        write_scenario(tmp_path / "data/parts" / name)
        write_maps(tmp_path / "data/parts" / name, tmp_path / "maps" / name)
    (tmp_path / "data/parts/bolt/test/good/000.png").unlink()
    (tmp_path / "data/parts/bolt/test/good/000.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "maps/nut/test/dent/001.npy").unlink()
    records = evaluated(tmp_path, code=3)
    assert perfect(records["parts/washer"])
    reasons = {name: record.failure.reason for name, record in records.items() if record.failure}
    assert set(reasons) == {"parts/bolt", "parts/nut"}
    assert "gone.png" in reasons["parts/bolt"]
    assert "test/dent/001" in reasons["parts/nut"]


def test_the_mask_of_a_missing_image_is_noted(tmp_path: Path) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    write_maps(tmp_path / "data/parts/bolt", tmp_path / "maps/bolt")
    (tmp_path / "data/parts/bolt/test/dent/001.png").unlink()
    record = evaluated(tmp_path)["parts/bolt"]
    assert perfect(record)
    assert record.data is not None
    assert any("ground_truth/dent/001_mask.png" in note for note in record.data.notes), record.data.notes


def test_two_folders_that_name_the_collection_are_refused(tmp_path: Path) -> None:
    scenario = tmp_path / "data/mvtec_anomaly_detection/bottle"
    write_scenario(scenario)
    write_maps(scenario, tmp_path / "maps/bottle")
    write_maps(scenario, tmp_path / "maps/mvtec_ad/bottle")
    assert perfect(evaluated(tmp_path)["mvtec_ad/bottle"])
    write_maps(scenario, tmp_path / "maps/mvtec_anomaly_detection/bottle")
    with pytest.raises(UsageError, match=r"mvtec_anomaly_detection/bottle both hold maps of mvtec_ad/bottle"):
        evaluated(tmp_path)


def test_one_folder_takes_several_evaluations(tmp_path: Path) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    write_maps(tmp_path / "data/parts/bolt", tmp_path / "maps/bolt")
    for options in ({}, {}, {"seed": 1}, {"name": "other"}, {"upsample": True}):
        evaluated(tmp_path, **options)
    records = RunStore(tmp_path / "out").records()
    assert sorted((record.method, record.seed, record.config["upsampled"]) for record in records) == [
        ("other", 0, False),
        ("perfect", 0, False),
        ("perfect", 0, True),
        ("perfect", 1, False),
    ]
