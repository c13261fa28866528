"""Thresholds of cells: chosen on images that were neither fitted nor tested on, and worth what numpy says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_support import write_scenario
from PIL import Image

from bench.cell import CellResult, calibrate, held_out_images, run_cell, split
from bench.cells import Cell
from bench.conditions import evaluate_conditions
from bench.datasets.cache import Cache
from bench.datasets.pixels import image_size
from bench.errors import DataError
from bench.given_calibration import calibration_files, digest_with, given_calibration
from bench.machine.devices import Slot
from bench.options import RunOptions
from bench.plan import HELD_OUT, make_plan
from bench.protocol import PROTOCOL
from bench.thresholding import NO_SCORES, PART_IS_ENOUGH, Calibration, TestMaps, Uncalibrated, apply_rules
from metrics import UpsampledMaps, evaluate_images, evaluate_pixels
from results.record import Threshold

SLOT = Slot(0, "cpu", 1)
SIDE = 16
Lit = tuple[list[str], np.ndarray, list[bool], list[np.ndarray | None]]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", enabled=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_scenario(tmp_path / "data/parts/bolt", train=24, seed=3)
    return tmp_path / "data"


@pytest.fixture
def validated(data: Path) -> Path:
    """The scenario with 20 validation images of its own, in sizes of their own."""
    random = np.random.default_rng(5)
    folder = data / "parts/bolt/validation/good"
    folder.mkdir(parents=True)
    for index in range(20):
        pixels = random.integers(90, 130, (30, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
    return data


@pytest.fixture(autouse=True)
def _tiny(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plugin))


def cell_of(data: Path, cache: Cache, **options: object) -> Cell:
    given = RunOptions(("tiny",), "parts/bolt", data_root=data, set={"tiny": {"side": SIDE}}, **options)  # type: ignore[arg-type]
    return make_plan(given, cache).cells[0]


def run(cell: Cell, cache: Cache) -> CellResult:
    return run_cell(cell, SLOT, cache, lambda _: None)


def by_rule(result: CellResult) -> dict[tuple[str, str], Threshold]:
    return {(item.level, item.rule): item for item in result.evaluation.thresholded.thresholds}


def test_thresholds_are_those_of_the_maps_at_full_resolution(validated: Path, cache: Cache) -> None:
    cell = cell_of(validated, cache)
    result = run(cell, cache)
    evaluation, calibration = result.evaluation, result.evaluation.calibration
    assert isinstance(calibration, Calibration)
    assert calibration.scores is not None
    normal = np.stack(list(UpsampledMaps(calibration.maps, [(30, 36)] * 20))).astype(np.float64)
    scores, scenario = calibration.scores, cell.scenario
    rank = int(np.ceil(21 * 0.95))  # of 20, the highest
    allowed = int(normal.size * (0.05 * 21 - 1) / 20)
    expected = {
        ("image", "mean+3sd"): np.mean(scores) + 3 * np.std(scores),
        ("image", "fpr0.05"): np.sort(scores)[rank - 1],
        ("pixel", "mean+3sd"): np.mean(normal) + 3 * np.std(normal),
        ("pixel", "fpr0.05"): np.sort(normal, axis=None)[normal.size - 1 - allowed],
        ("pixel", "image_fpr0.05"): np.sort(normal.max((1, 2)))[rank - 1],
    }
    thresholds = by_rule(result)
    assert {key: item.value for key, item in thresholds.items()} == pytest.approx(expected, rel=1e-12)
    assert {(item.calibrated_on, item.images) for item in thresholds.values()} == {
        ("validation images of the scenario", 20)
    }

    sizes = [image_size(image.path) for image in scenario.test]
    maps = list(UpsampledMaps(evaluation.maps.maps, sizes))
    truth = np.array([image.anomalous for image in scenario.test])
    masks = [
        np.asarray(Image.open(image.masks[0])) > 0 if image.masks else np.zeros(sizes[0], bool)
        for image in scenario.test
    ]
    named = evaluation.named()
    for (level, rule), item in thresholds.items():
        if level == "image":
            called = evaluation.maps.scores > item.value
            assert named[f"image_f1@{rule}"] == f1(called, truth)
            assert item.realised_false_positive_rate == named[f"image_fpr@{rule}"] == np.mean(called[~truth])
            continue
        above = np.stack([map_.astype(np.float64) > item.value for map_ in maps])
        assert named[f"pixel_f1@{rule}"] == f1(above, np.stack(masks))
        assert named[f"pixel_recall@{rule}"] == np.mean(above[np.stack(masks)])
        assert named[f"pixel_fpr@{rule}"] == np.mean(above[~truth])
        assert named[f"any_pixel_f1@{rule}"] == f1(above.any((1, 2)), truth)
        assert named[f"any_pixel_fpr@{rule}"] == np.mean(above.any((1, 2))[~truth])
        rate = "any_pixel" if rule.startswith("image") else "pixel"
        assert item.realised_false_positive_rate == named[f"{rate}_fpr@{rule}"]


def f1(called: np.ndarray, truth: np.ndarray) -> float:
    true = np.sum(called & truth)
    return float(2 * true / (2 * true + np.sum(called & ~truth) + np.sum(~called & truth)))


def test_without_images_to_choose_them_on_there_are_none(data: Path, cache: Cache) -> None:
    result = run(cell_of(data, cache), cache)
    evaluation = result.evaluation
    assert evaluation.thresholded.thresholds == ()
    assert isinstance(evaluation.calibration, Uncalibrated)
    names = [name for name, value in evaluation.named().items() if value is None]
    assert {"image_f1@mean+3sd", "pixel_f1@mean+3sd", "any_pixel_fpr@image_fpr0.05"} <= set(names)
    assert "bench run --hold-out" in evaluation.undefined["image_f1@mean+3sd"]


def test_holding_out_changes_the_fit_its_key_and_its_row(data: Path, validated: Path, cache: Cache) -> None:
    own_ones = cell_of(validated, cache)
    assert cell_of(validated, cache, hold_out=True) == own_ones  # which has its own
    for file in (data / "parts/bolt/validation/good").iterdir():
        file.unlink()
    without, with_ = cell_of(data, cache), cell_of(data, cache, hold_out=True)
    assert without.fit_key != with_.fit_key
    assert (HELD_OUT in without.entrant.deviations, HELD_OUT in with_.entrant.deviations) == (False, True)
    result = run(with_, cache)
    assert (result.fitted.facts.train, result.fitted.facts.validation) == (22, 2)
    calibration = result.evaluation.calibration
    assert isinstance(calibration, Calibration)
    assert calibration.images_are == "held-out training images"
    held_out = [with_.scenario.train[index].stem for index in split(24, PROTOCOL.validation_fraction, 0)[1]]
    assert calibration.names == [f"train/good/{stem}" for stem in held_out]
    # Two images support no rate of 5 %, but have a mean.
    assert set(by_rule(result)) == {("image", "mean+3sd"), ("pixel", "mean+3sd")}
    assert "at least 19 are needed" in result.evaluation.undefined["pixel_f1@fpr0.05"]


def test_the_detector_is_fitted_without_the_images_held_out(data: Path, cache: Cache) -> None:
    for path in (data / "parts/bolt/train/good").iterdir():
        Image.new("RGB", (48, 40), (10, 10, 10)).save(path)
    cell = cell_of(data, cache, hold_out=True)
    for path in held_out_images(cell.scenario, 2, cell.seed):
        Image.new("RGB", (48, 40), (250, 250, 250)).save(path)
    fresh = cell_of(data, cache, hold_out=True)
    module = run(fresh, cache).fitted.detector.module()
    assert torch.equal(module.mean, torch.full_like(module.mean, 10))


def test_kept_models_choose_the_same_thresholds(data: Path, cache: Cache) -> None:
    cell = cell_of(data, cache, hold_out=True)
    result = run(cell, cache)
    held_out = held_out_images(cell.scenario, result.fitted.facts.validation, cell.seed)
    again = calibrate(result.fitted.detector, cell.scenario, held_out, cache, lambda _: None, tf32=False)
    calibration = result.evaluation.calibration
    assert isinstance(again, Calibration)
    assert isinstance(calibration, Calibration)
    assert all(map(np.array_equal, again.maps, calibration.maps))


def maps_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 5, 6), dtype=np.float32)


def test_structural_and_logical_anomalies_are_averaged() -> None:
    kinds = ["normal", "normal", "structural", "logical", "logical"]
    scores = np.array([0.4, 0.9, 0.8, 0.2, 0.7])  # the first is at the threshold, not above
    calibration = Calibration(["a", "b"], maps_of(2), np.array([0.4, 0.4]), [(5, 6)] * 2, "some")
    test = TestMaps(list("vwxyz"), maps_of(5, 1), scores, kinds, None, PART_IS_ENOUGH, halved=True)
    metrics = apply_rules(calibration, test).metrics
    named = metrics.named()
    assert named["structural/image_recall@mean+3sd"] == 1
    assert named["logical/image_recall@mean+3sd"] == named["image_fpr@mean+3sd"] == 0.5
    assert named["image_recall@mean+3sd"] == 0.75
    assert metrics.undefined["structural/pixel_f1@mean+3sd"] == PART_IS_ENOUGH
    assert np.isnan(named["pixel_f1@mean+3sd"])
    assert named["pixel_fpr@mean+3sd"] == named["structural/pixel_fpr@mean+3sd"]


def test_test_sets_of_one_kind_have_what_is_defined() -> None:
    calibration = Calibration(["a"], maps_of(1), None, [(5, 6)], "some")
    normal = apply_rules(calibration, TestMaps(["x"], maps_of(1), np.zeros(1), ["normal"], [None]))
    undefined = normal.metrics.undefined
    assert undefined["image_f1@mean+3sd"] == NO_SCORES
    assert undefined["pixel_f1@mean+3sd"] == "no mask marks a defect pixel"
    assert undefined["any_pixel_f1@mean+3sd"] == "no image is anomalous"
    assert "pixel_fpr@mean+3sd" not in undefined
    mask = np.ones((5, 6), np.bool_)
    anomalous = apply_rules(calibration, TestMaps(["x"], maps_of(1), np.zeros(1), ["bad"], [mask]))
    assert anomalous.metrics.undefined["pixel_fpr@mean+3sd"] == "no image is normal"
    (threshold,) = anomalous.thresholds
    assert threshold.realised_false_positive_rate is None


@pytest.fixture
def lit() -> Lit:
    conditions = ["regular", "overexposed", "dark"] * 4
    anomalous = [index >= 6 for index in range(12)]
    masks: list[np.ndarray | None] = [None] * 6
    masks += [np.random.default_rng(index).random((5, 6)) < 0.3 for index in range(6)]
    return conditions, maps_of(12, 7), anomalous, masks


def test_conditions_are_evaluated_each_alone(
    lit: Lit,
) -> None:
    conditions, maps, anomalous, masks = lit
    scores, names = maps.max((1, 2)).astype(np.float64), [str(index) for index in range(12)]
    values = evaluate_conditions(conditions, maps, scores, anomalous, masks, names=names, threads=1).named()
    parts = {name: [index for index in range(12) if conditions[index] == name] for name in set(conditions)}
    parts["changed"] = sorted(parts["overexposed"] + parts["dark"])
    assert [name.partition("/")[0] for name in values][::2] == ["regular", "dark", "overexposed", "changed"]
    for name, own in parts.items():
        images = evaluate_images(scores[own], [anomalous[index] for index in own])
        pixels = evaluate_pixels(maps[own], [masks[index] for index in own])
        assert values[f"{name}/image_au_roc"] == images.au_roc
        assert values[f"{name}/au_pro@0.05"] == pixels.au_pro[0.05]


def test_one_condition_is_none_and_what_is_missing_is_said(
    lit: Lit,
) -> None:
    _, maps, anomalous, masks = lit
    scores, names = np.zeros(12), [str(index) for index in range(12)]
    for light in (["regular"] * 12, [""] * 12):
        assert not evaluate_conditions(light, maps, scores, anomalous, masks, names=names, threads=1).named()
    light = ["regular"] * 6 + ["dark"] * 6
    values = evaluate_conditions(light, maps, scores, anomalous, masks, names=names, threads=1)
    assert values.undefined["regular/au_pro@0.05"] == "no image is anomalous"
    assert values.undefined["dark/image_au_roc"] == "no image is normal"
    without = evaluate_conditions(light, maps, scores, anomalous, None, names=names, threads=1)
    assert set(without.named()) == {"regular/image_au_roc", "dark/image_au_roc"}


def test_maps_from_elsewhere_bring_those_of_normal_images(validated: Path, cache: Cache, tmp_path: Path) -> None:
    scenario, folder = cell_of(validated, cache).scenario, tmp_path / "maps"
    nothing = given_calibration(scenario, folder, upsample=False, scores_given=False)
    assert isinstance(nothing, Uncalibrated)
    assert "validation/good" in nothing.reason
    (folder / "validation/good").mkdir(parents=True)
    for index in range(3):
        np.save(folder / f"validation/good/{index:03}.npy", np.full((30, 36), index, np.float32))
    found = given_calibration(scenario, folder, upsample=False, scores_given=False)
    assert isinstance(found, Calibration)
    assert found.scores is not None
    assert found.scores.tolist() == [0, 1, 2]
    assert found.names[0] == "validation/good/000"
    assert given_calibration(scenario, folder, upsample=False, scores_given=True).scores is None  # type: ignore[union-attr]
    files = calibration_files(folder)
    assert digest_with("abc", [], cache) == "abc"
    before = digest_with("abc", files, cache)
    np.save(files[0], np.ones((30, 36), np.float32))
    assert digest_with("abc", files, cache) != before

    np.save(folder / "validation/good/001.npy", np.ones((3, 3), np.float32))
    with pytest.raises(DataError, match=r"has 3×3 pixels, its image .* has 30×36"):
        given_calibration(scenario, folder, upsample=False, scores_given=False)
    given_calibration(scenario, folder, upsample=True, scores_given=False)
    np.save(folder / "validation/good/other.npy", np.ones((30, 36), np.float32))
    with pytest.raises(DataError, match=r"other\.npy is of no validation image of parts/bolt"):
        given_calibration(scenario, folder, upsample=True, scores_given=False)
    training = replace(scenario, validation=())
    with pytest.raises(DataError, match="is of no training image"):
        given_calibration(training, folder, upsample=True, scores_given=False)
