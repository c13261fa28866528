"""Whether rows differ, on run folders whose records and regions are made of given scores and shares."""

import csv
import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from bench.commands.compare import CompareOptions, compare, comparison_tables, delimited, markdown
from bench.comparison import Resampling, compare_rows
from bench.errors import DataError, UsageError
from metrics import evaluate_images, false_negative_rates
from results.record import Collection, Data, Environment, ImageResult, Record
from results.regions import REGIONS_FILE, RegionResult, write_regions
from results.store import RunStore

FAST = Resampling(resamples=200)
PARTS = Collection(name="parts", title="Parts", scenarios=8)
TITLES = {"patchcore": "PatchCore", "fastflow": "FastFlow"}
PLAIN = ("good",) * 20 + ("dent",) * 20
LOCO = ("good",) * 20 + ("structural_anomalies",) * 20 + ("logical_anomalies",) * 10


def image_metrics(scores, defects) -> dict[str, float]:
    def au_roc(half):
        own = [(score, defect != "good") for score, defect in zip(scores, defects, strict=True) if half(defect)]
        return evaluate_images(*zip(*own, strict=True)).au_roc

    if "dent" in defects:
        return {"image_au_roc": au_roc(lambda _: True)}
    halves = {
        half: au_roc(lambda defect, half=half: defect == "good" or defect.startswith(half))
        for half in ("structural", "logical")
    }
    return {"image_au_roc": fmean(halves.values()), **{f"{half}/image_au_roc": value for half, value in halves.items()}}


def region_metrics(regions) -> dict[str, float]:
    (name,) = regions[0].values
    if name == "au_pro@0.3":
        return {name: fmean(region.values[name] for region in regions)}
    halves = {
        half: fmean(region.values[name] for region in regions if region.defect.startswith(half))
        for half in ("structural", "logical")
    }
    return {name: fmean(halves.values()), **{f"{half}/{name}": value for half, value in halves.items()}}


def write_cell(run, method, scores, shares, *, scenario="bolt", seed=0, defects=PLAIN, fingerprint="a", **changes):
    """A cell of these image scores and region shares: two regions in each anomalous image."""
    names = [f"test/{defect}/{number:03}" for number, defect in enumerate(defects)]
    anomalous = [(name, defect) for name, defect in zip(names, defects, strict=True) if defect != "good"]
    metric = "au_pro@0.3" if "dent" in defects else "au_spro@0.05"
    regions = [
        RegionResult(image=image, defect=defect, area=9, values={metric: float(share)})
        for (image, defect), share in zip([place for place in anomalous for _ in range(2)], shares, strict=True)
    ]
    record = Record.model_validate(
        {
            "key": hashlib.sha256(repr((method, scenario, seed, fingerprint, changes)).encode()).hexdigest(),
            "status": "ok",
            "method": method,
            "title": TITLES[method],
            "source": "a paper",
            "collection": PARTS,
            "scenario": scenario,
            "seed": seed,
            "config": {},
            "protocol": {},
            "protocol_hash": "5" * 64,
            "data": Data(
                fingerprint=fingerprint * 64, train=9, validation=0, test_normal=20, test_anomalous=len(anomalous)
            ),
            "metrics": {**image_metrics(scores, defects), **region_metrics(regions)},
            "images": [
                ImageResult(name=name, defect=defect, anomalous=defect != "good", score=score)
                for name, defect, score in zip(names, defects, map(float, scores), strict=True)
            ],
            "environment": Environment(platform="Linux", python="3.11", cpu="a", threads=1, device="cpu", packages={}),
            "command": "bench run",
            "created": datetime(2026, 1, 1, tzinfo=UTC),
            **changes,
        }
    )
    store = RunStore(run)
    write_regions(store.cell_directory(record), regions)
    store.write(record)
    return store.cell_directory(record)


def scores_of(rng, defects=PLAIN, gap=1.5):
    return rng.standard_normal(len(defects)) + gap * np.array([defect != "good" for defect in defects])


def shares_of(rng, defects=PLAIN, mean=0.5):
    return np.clip(rng.normal(mean, 0.15, 2 * sum(defect != "good" for defect in defects)), 0, 1)


def by_metric(comparison, scenario=0):
    return {difference.metric: difference for difference in comparison.parts[0].scenarios[scenario].differences}


def test_equal_rows_do_not_differ(tmp_path):
    rng = np.random.default_rng(0)
    for scenario in "abcdefg":
        scores, shares = scores_of(rng), shares_of(rng)
        for method in TITLES:
            write_cell(tmp_path, method, scores, shares, scenario=scenario)
    (part,) = compare_rows(tmp_path, "patchcore", "fastflow", FAST).parts
    for difference in (*(each for scenario in part.scenarios for each in scenario.differences), *part.means):
        assert (difference.value, difference.interval.low, difference.interval.high) == (0, 0, 0)
        assert difference.p_value == 1
        assert difference.reason == ""


def test_a_planted_difference_is_seen_and_has_its_sign(tmp_path):
    rng = np.random.default_rng(0)
    write_cell(tmp_path, "patchcore", scores_of(rng, gap=4), shares_of(rng, mean=0.8))
    write_cell(tmp_path, "fastflow", scores_of(rng, gap=0.3), shares_of(rng, mean=0.4))
    forth = by_metric(compare_rows(tmp_path, "patchcore", "fastflow", FAST))
    back = by_metric(compare_rows(tmp_path, "fastflow", "patchcore", FAST))
    for metric in ("image_au_roc", "au_pro@0.3"):
        assert forth[metric].interval.low > 0
        assert back[metric].interval.high < 0
        assert forth[metric].p_value == back[metric].p_value == 2 / 201
        assert forth[metric].value == pytest.approx(forth[metric].first - forth[metric].second)


@pytest.mark.slow
def test_noise_is_seldom_taken_for_a_difference(tmp_path):
    rng = np.random.default_rng(1)
    for number in range(60):
        for method in TITLES:
            write_cell(tmp_path, method, scores_of(rng), shares_of(rng), scenario=f"{number:02}")
    (part,) = compare_rows(tmp_path, "patchcore", "fastflow", FAST).parts
    p_values = [difference.p_value for scenario in part.scenarios for difference in scenario.differences]
    assert len(p_values) == 120
    # 120 draws of probability 0.1: 3 to 22 are its 99.9 % range, and the p-values are spread evenly over [0, 1].
    assert 3 <= sum(p_value <= 0.1 for p_value in p_values) <= 22
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert all(difference.p_value > 0.01 for difference in part.means)


def test_several_seeds_are_averaged_over_those_that_both_rows_have(tmp_path):
    rng = np.random.default_rng(0)
    scores = {(method, seed): scores_of(rng) for method in TITLES for seed in (0, 1)}
    for (method, seed), own in scores.items():
        write_cell(tmp_path, method, own, shares_of(rng), seed=seed)
    write_cell(tmp_path, "fastflow", scores_of(rng), shares_of(rng), seed=2)
    write_cell(tmp_path, "fastflow", scores_of(rng), shares_of(rng), scenario="nut")
    comparison = compare_rows(tmp_path, "patchcore", "fastflow", FAST)
    assert comparison.left_out == ("bolt, seed 2: only FastFlow", "nut, seed 0: only FastFlow")
    assert [scenario.seeds for scenario in comparison.parts[0].scenarios] == [(0, 1)]
    labels = [defect != "good" for defect in PLAIN]
    values = [fmean(evaluate_images(scores[method, seed], labels).au_roc for seed in (0, 1)) for method in TITLES]
    difference = by_metric(comparison)["image_au_roc"]
    assert (difference.first, difference.second) == pytest.approx(values)
    assert difference.interval.value == pytest.approx(values[0] - values[1])
    for rate in comparison.parts[0].scenarios[0].false_negatives:
        limit = rate.false_positive_rate
        expected = [
            fmean(false_negative_rates(scores[method, seed], labels, [limit])[limit] for seed in (0, 1))
            for method in TITLES
        ]
        assert (rate.first, rate.second) == pytest.approx(expected)


def test_both_halves_of_loco_and_their_mean(tmp_path):
    rng = np.random.default_rng(0)
    clear = np.concatenate((np.full(40, 0.4), np.zeros(20)))  # more of the structural regions only
    shares, scores = shares_of(rng, LOCO, mean=0.3), scores_of(rng, LOCO)
    logical = 3 * np.array([defect.startswith("logical") for defect in LOCO])
    write_cell(tmp_path, "patchcore", scores + logical, shares + clear, defects=LOCO)
    write_cell(tmp_path, "fastflow", scores, shares, defects=LOCO)
    found = by_metric(compare_rows(tmp_path, "patchcore", "fastflow", FAST))
    assert list(found) == [
        f"{half}{name}" for name in ("image_au_roc", "au_spro@0.05") for half in ("structural/", "logical/", "")
    ]
    structural, logical, mean = (found[f"{half}au_spro@0.05"] for half in ("structural/", "logical/", ""))
    assert (structural.interval.value, structural.p_value) == (pytest.approx(0.4), 2 / 201)
    assert (logical.interval.value, logical.p_value) == (0, 1)
    assert (mean.interval.value, mean.p_value) == (pytest.approx(0.2), 2 / 201)
    assert found["structural/image_au_roc"].value == 0
    assert found["image_au_roc"].value == pytest.approx(found["logical/image_au_roc"].value / 2)
    assert found["logical/image_au_roc"].p_value < 0.05


def test_the_mean_over_scenarios_has_an_interval_and_with_six_of_them_a_test(tmp_path):
    rng = np.random.default_rng(0)
    differences = []
    for number in range(6):
        shares = shares_of(rng, mean=0.4)
        gain = 0.1 + 0.01 * number
        write_cell(tmp_path, "patchcore", scores_of(rng), shares + gain, scenario=f"{number}")
        write_cell(tmp_path, "fastflow", scores_of(rng), shares, scenario=f"{number}")
        differences.append(gain)
        if number == 4:
            of_five = compare_rows(tmp_path, "patchcore", "fastflow", FAST).parts[0].means[1]
    mean = compare_rows(tmp_path, "patchcore", "fastflow", FAST).parts[0].means[1]
    assert mean.metric == "au_pro@0.3"
    assert mean.interval.value == pytest.approx(fmean(differences))
    assert mean.p_value == stats.wilcoxon(differences).pvalue == 0.03125
    assert (of_five.p_value, of_five.reason) == (None, "too few scenarios for a test: 5, it needs 6")
    assert of_five.interval.low > 0


@pytest.mark.slow
def test_every_scenario_is_resampled_by_itself(tmp_path):
    rng = np.random.default_rng(0)
    rows = {method: (scores_of(rng), shares_of(rng)) for method in TITLES}
    for scenario in "abcdefghi":
        for method, (scores, shares) in rows.items():
            write_cell(tmp_path, method, scores, shares, scenario=scenario)
    (part,) = compare_rows(tmp_path, "patchcore", "fastflow", Resampling(resamples=1000)).parts
    for alone, mean in zip(part.scenarios[0].differences, part.means, strict=True):
        widths = [interval.high - interval.low for interval in (alone.interval, mean.interval)]
        assert widths[1] == pytest.approx(widths[0] / 3, rel=0.15)


def test_rows_are_named_by_method_label_and_number(tmp_path):
    rng = np.random.default_rng(0)
    for scale in (1.0, 0.5):
        write_cell(tmp_path, "patchcore", scores_of(rng), shares_of(rng), train_scale=scale)
        write_cell(tmp_path, "fastflow", scores_of(rng), shares_of(rng), train_scale=scale, seed=1)
    with pytest.raises(UsageError, match=r"'patchcore' means 2 rows; name one of\n  patchcore#1: PatchCore #1, train "):
        compare_rows(tmp_path, "patchcore", "fastflow#1", FAST)
    with pytest.raises(UsageError, match=r"'fastflo#1'; did you mean 'fastflow#1'\?\n  Allowed: fastflow#1, "):
        compare_rows(tmp_path, "patchcore#1", "fastflo#1", FAST)
    with pytest.raises(UsageError, match=r"different train scales.*PatchCore #1 has 1, FastFlow #2 0\.5"):
        compare_rows(tmp_path, "patchcore#1", "FastFlow #2", FAST)
    with pytest.raises(UsageError, match=r"share no scenario and seed .*\n  bolt, seed 0: only PatchCore #2"):
        compare_rows(tmp_path, "PatchCore #2", "fastflow#2", FAST)


def test_rows_of_different_protocols_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    write_cell(tmp_path, "patchcore", scores_of(rng), shares_of(rng))
    write_cell(tmp_path, "fastflow", scores_of(rng), shares_of(rng), protocol_hash="6" * 64)
    with pytest.raises(UsageError, match="different protocols"):
        compare_rows(tmp_path, "patchcore", "fastflow", FAST)


def test_rows_on_different_files_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    write_cell(tmp_path, "patchcore", scores_of(rng), shares_of(rng))
    write_cell(tmp_path, "fastflow", scores_of(rng), shares_of(rng), fingerprint="b")
    with pytest.raises(DataError, match=r"parts/bolt: .*different files, fingerprints aaaaaaaaaaaa and bbbbbbbbbbbb"):
        compare_rows(tmp_path, "patchcore", "fastflow", FAST)


def test_missing_and_foreign_regions_are_said(tmp_path):
    rng = np.random.default_rng(0)
    folders = [write_cell(tmp_path, method, scores_of(rng), shares_of(rng)) for method in TITLES]
    (folders[0] / REGIONS_FILE).write_bytes((folders[1] / REGIONS_FILE).read_bytes())
    with pytest.raises(DataError, match=r"gives a difference in au_pro@0\.3 of 0\.000000, the records themselves"):
        compare_rows(tmp_path, "patchcore", "fastflow", FAST)
    (folders[0] / REGIONS_FILE).unlink()
    found = by_metric(compare_rows(tmp_path, "patchcore", "fastflow", FAST))
    assert found["au_pro@0.3"].reason == "no defect regions are stored beside the record"
    assert found["au_pro@0.3"].first is not None
    assert found["image_au_roc"].p_value is not None


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"level": 95.0}, {"resamples": 10}, {"seed": -1}])
def test_numbers_out_of_range_are_named(wrong):
    (name,) = wrong
    with pytest.raises(UsageError, match=f"--{name} is .*; allowed: "):
        replace(FAST, **wrong)


@pytest.fixture(scope="module")
def noted_run(tmp_path_factory):
    """Two methods on two scenarios, one of them with a deviation that its row must show."""
    run, rng = tmp_path_factory.mktemp("runs") / "noted", np.random.default_rng(0)
    for scenario in ("bolt", "nut"):
        write_cell(run, "patchcore", scores_of(rng, gap=4), shares_of(rng, mean=0.8), scenario=scenario)
        half = {"precision": "bf16", "deviations": ["precision bf16"]}
        write_cell(run, "fastflow", scores_of(rng), shares_of(rng), scenario=scenario, **half)
    return run


def test_the_tables_say_what_is_compared_and_how(noted_run):
    comparison = compare_rows(noted_run, "patchcore", "fastflow", FAST)
    differences, false_negatives = comparison_tables(comparison)
    assert differences.title == "Parts: PatchCore (A) against FastFlow (B)"
    assert [row[0].text for row in differences.rows] == ["bolt", "bolt", "nut", "nut", "mean over 2", "mean over 2"]
    notes = {note.mark: note.text for note in differences.notes if note.mark}
    assert notes == {
        "A": "PatchCore",
        "B": "FastFlow; precision bf16",
        "a": "too few scenarios for a test: 2, it needs 6",
    }
    assert any("not corrected for their number, 4 in" in note.text for note in differences.notes)
    assert [column.title for column in false_negatives.columns[2:]] == ["at FPR 0 %", "at FPR 1 %", "at FPR 5 %"]
    assert "**Parts: PatchCore (A) against FastFlow (B)**" in markdown(comparison)
    lines = list(csv.DictReader(io.StringIO(delimited(comparison))))
    first = comparison.parts[0].scenarios[0].differences[0]
    assert (lines[0]["difference"], lines[0]["p_value"]) == (repr(first.value), repr(first.p_value))
    assert [line["metric"] for line in lines if line["scenario"] == ""] == ["image_au_roc", "au_pro@0.3"]
    assert "false_negative_rate@0.05" in {line["metric"] for line in lines}


def test_a_file_of_no_known_format_is_refused(noted_run, tmp_path):
    with pytest.raises(UsageError, match="unknown format 'txt'"):
        compare(CompareOptions(noted_run, "patchcore", "fastflow", out=tmp_path / "a.txt"))


@pytest.mark.slow
def test_the_command_prints_and_writes(bench, noted_run, tmp_path):
    shown = bench("compare", noted_run, "patchcore", "fastflow", "--resamples", 200)
    assert shown.returncode == 0, shown.stderr
    assert "Parts: PatchCore (A) against FastFlow (B)" in shown.stdout
    assert "false-negative rates" in shown.stdout
    written = bench("compare", noted_run, "patchcore", "fastflow", "--resamples", 200, "--out", tmp_path / "a.md")
    assert written.stdout.strip() == str(tmp_path / "a.md")
    assert (tmp_path / "a.md").read_text() == markdown(compare_rows(noted_run, "patchcore", "fastflow", FAST))
    refused = bench("compare", noted_run, "patchcore", "fastfloww")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "did you mean 'fastflow'?" in refused.stderr
