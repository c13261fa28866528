"""Scoring of a scenario with saturation thresholds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_support import write_scenario
from PIL import Image

from bench.datasets.cache import Cache
from bench.datasets.layouts.mvtec import LAYOUT
from bench.datasets.scenario import Scenario
from bench.errors import DataError
from bench.scoring import AnomalyMaps, read_and_check, score

SIZE = (20, 30)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def loco(folder: Path, defects: tuple[str, ...], saturation: int = 8) -> Scenario:
    """Two normal images and two of each defect, whose region is 4×4 pixels of which ``saturation`` are to be found."""
    folder.mkdir(parents=True)
    rule = {"defect_name": "any", "pixel_value": 255, "saturation_threshold": saturation, "relative_saturation": False}
    (folder / "defects_config.json").write_text(json.dumps([rule]))
    mask = np.zeros(SIZE, np.uint8)
    mask[4:8, 4:8] = 255
    for name in ("train/good/0", "train/good/1", "validation/good/0", "test/good/0", "test/good/1"):
        write(folder / f"{name}.png", np.zeros(SIZE, np.uint8))
    for defect in defects:
        for index in range(2):
            write(folder / f"test/{defect}/{index}.png", np.zeros(SIZE, np.uint8))
            write(folder / f"ground_truth/{defect}/{index}/000.png", mask)
    return LAYOUT.read(folder.parent, folder.name, Cache(folder, enabled=False))


def anomaly_maps(scenario: Scenario) -> AnomalyMaps:
    """Structural defects are half found, which is enough; logical ones are missed."""
    maps = []
    for image in scenario.test:
        pixels = np.random.default_rng(len(maps)).uniform(0, 0.5, SIZE).astype(np.float32)
        if image.defect.startswith("structural"):
            pixels[4:8, 4:6] = 1
        if image.defect.startswith("logical"):
            pixels[4:8, 4:8] = -1
        maps.append(pixels)
    return AnomalyMaps(maps, np.array([pixels.max() for pixels in maps], np.float64))


@pytest.mark.slow
def test_structural_and_logical_anomalies_are_scored_apart_and_averaged(tmp_path: Path) -> None:
    scenario = loco(tmp_path / "loco/box", ("structural_anomalies", "logical_anomalies"))
    sizes = [SIZE] * len(scenario.test)
    metrics = score(anomaly_maps(scenario), read_and_check(scenario, sizes), threads=1)
    values = metrics.named()
    assert metrics.undefined == {}
    assert values["structural/au_spro@0.05"] == 1
    assert values["logical/au_spro@0.05"] == 0
    assert values["au_spro@0.05"] == 0.5
    assert values["structural/image_au_roc"] == 1
    assert {region.saturation for region in metrics.regions} == {8}
    assert [region.values["au_spro@0.05"] for region in metrics.regions] == [1, 1, 0, 0]
    for name in ("au_spro@0.3", "au_spro@1.0", "image_au_roc", "image_average_precision", "image_f1_max"):
        halves = [values[f"{half}/{name}"] for half in ("structural", "logical")]
        assert values[name] == pytest.approx(np.mean(halves))


def test_without_one_half_the_mean_is_undefined_and_says_why(tmp_path: Path) -> None:
    scenario = loco(tmp_path / "loco/box", ("structural_anomalies",))
    sizes = [SIZE] * len(scenario.test)
    metrics = score(anomaly_maps(scenario), read_and_check(scenario, sizes), threads=1)
    values = metrics.named()
    assert values["structural/image_au_roc"] == 1
    assert values["image_au_roc"] is None
    assert metrics.undefined["image_au_roc"] == "logical: no image is anomalous"
    assert {name for name, value in values.items() if value is None} == set(metrics.undefined)
    assert {region.defect for region in metrics.regions} == {"structural_anomalies"}


def test_anomalies_that_are_neither_beside_others_are_refused(tmp_path: Path) -> None:
    scenario = loco(tmp_path / "loco/box", ("dent", "logical_anomalies"))
    with pytest.raises(DataError, match="test/dent/0 is neither structural nor logical, while others are"):
        read_and_check(scenario, [SIZE] * len(scenario.test))


def test_where_nobody_tells_them_apart_all_are_scored_together(tmp_path: Path) -> None:
    scenario = loco(tmp_path / "autovi/pipe", ("structural_anomalies",))
    renamed = [replace(image, defect="missing") if image.anomalous else image for image in scenario.test]
    together = replace(scenario, test=tuple(renamed))
    sizes = [SIZE] * len(scenario.test)
    maps = anomaly_maps(scenario)
    values = score(maps, read_and_check(together, sizes), threads=1).named()
    halves = score(maps, read_and_check(scenario, sizes), threads=1).named()
    assert values["au_spro@0.05"] == halves["structural/au_spro@0.05"] == 1
    assert values["image_au_roc"] == halves["structural/image_au_roc"]
    assert not any("/" in name for name in values)


def test_what_is_corrected_in_the_ground_truth_is_noted(tmp_path: Path) -> None:
    scenario = loco(tmp_path / "loco/box", ("structural_anomalies", "logical_anomalies"), saturation=400)
    write(tmp_path / "loco/box/ground_truth/logical_anomalies/1/000.png", np.zeros(SIZE, np.uint8))
    sizes = [SIZE] * len(scenario.test)
    metrics = score(anomaly_maps(scenario), read_and_check(scenario, sizes), threads=1)
    assert metrics.notes[0] == "test/logical_anomalies/1: anomalous, but its ground truth marks no pixel"
    assert len(metrics.notes) == 4
    assert all("saturation 400 taken as 16" in note for note in metrics.notes[1:])


def test_an_empty_mask_is_noted_and_its_image_stays_anomalous(tmp_path: Path) -> None:
    write_scenario(tmp_path / "parts/bolt")
    write(tmp_path / "parts/bolt/ground_truth/dent/001_mask.png", np.zeros((40, 48), np.uint8))
    folder = tmp_path / "parts/bolt"
    scenario = LAYOUT.read(folder.parent, folder.name, Cache(folder, enabled=False))
    maps = [np.random.default_rng(index).random((8, 8), np.float32) for index in range(len(scenario.test))]
    image_scores = np.array([float(image.anomalous) for image in scenario.test])
    sizes = [(40, 48)] * len(maps)
    metrics = score(AnomalyMaps(maps, image_scores), read_and_check(scenario, sizes), threads=1)
    assert metrics.notes == ("test/dent/001: anomalous, but its ground truth marks no pixel",)
    assert metrics.named()["image_au_roc"] == 1.0
