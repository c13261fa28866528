import csv
import io

import pytest
from record_factory import LOCO, MVTEC, fail, make_metrics, make_record, write_run

from reports.content.provenance import provenance
from reports.content.selection import select
from reports.content.tables import accuracy_table
from reports.content.thresholds import condition_table, threshold_table
from reports.rendering import latex, markdown
from reports.report import make_report
from results.record import Collection, Threshold

AD_2 = Collection(name="mvtec_ad_2", title="MVTec AD 2", scenarios=8)


def threshold(rule="mean+3sd", level="image", **changes):
    fields = {
        "rule": rule,
        "level": level,
        "calibrated_on": "held-out training images",
        "images": 7,
        "value": 1.5,
        "rate_of": "images" if level == "image" else "pixels",
        "declared_false_positive_rate": None,
        "realised_false_positive_rate": 0.125,
    }
    return Threshold.model_validate({**fields, **changes})


def with_thresholds(method="patchcore", collection=MVTEC, scenario="pill", seed=0, f1=0.75):
    chosen = [
        threshold(),
        threshold("mean+3sd", "pixel", realised_false_positive_rate=0.01),
        threshold("fpr0.05", "pixel", declared_false_positive_rate=0.05, images=20),
        threshold("image_fpr0.05", "pixel", rate_of="images", declared_false_positive_rate=0.05),
    ]
    metrics = make_metrics(method, collection, scenario, seed)
    for item in chosen:
        names = ("image",) if item.level == "image" else ("pixel", "any_pixel")
        metrics |= {f"{name}_f1@{item.rule}": f1 for name in names}
        metrics |= {f"{name}_fpr@{item.rule}": 0.5 if name == "any_pixel" else 0.125 for name in names}
    return make_record(method, collection, scenario, seed, metrics=metrics, thresholds=chosen)


def table_of(make, records):
    (part,) = select((record, None) for record in records).parts
    return make(part)


def texts(table):
    return [[field.text for field in row] for row in table.rows]


def notes(table):
    return "\n".join(note.text for note in table.notes)


def test_each_rule_says_what_it_promises_and_what_it_does():
    table = table_of(threshold_table, [with_thresholds(), with_thresholds(seed=1, f1=0.85)])
    coverage = "1 of 15 scenarios, 2 seeds"
    assert texts(table) == [
        ["image score, mean+3sd", "PatchCore", coverage, "images", "–", "12.5 ± 0.0", "80.0 ± 7.1", "–"],
        ["pixels, mean+3sd", "PatchCore", coverage, "pixels", "–", "12.5 ± 0.0", "80.0 ± 7.1", "80.0 ± 7.1"],
        ["pixels, fpr0.05", "PatchCore", coverage, "pixels", "5.0", "12.5 ± 0.0", "80.0 ± 7.1", "80.0 ± 7.1"],
        ["pixels, image_fpr0.05", "PatchCore", coverage, "images", "5.0", "50.0 ± 0.0", "80.0 ± 7.1", "80.0 ± 7.1"],
    ]
    assert "chosen on 7 to 20 held-out training images per cell, never on test images" in notes(table)


def test_the_best_f1_of_a_rule_is_marked_and_no_rate_is():
    table = table_of(threshold_table, [with_thresholds("dsr", f1=0.5), with_thresholds("patchcore", f1=0.75)])
    best = {(row[0].text, row[1].text): [field.best for field in row[4:]] for row in table.rows}
    assert best["pixels, fpr0.05", "PatchCore"] == [False, False, True, True]
    assert best["pixels, fpr0.05", "DSR"] == [False] * 4


def test_what_a_part_of_the_cells_lacks_is_said():
    record = with_thresholds(seed=1)
    metrics = record.metrics | {"pixel_f1@fpr0.05": None}
    lacking = record.model_copy(
        update={"metrics": metrics, "undefined": {"pixel_f1@fpr0.05": "no mask"}, "thresholds": record.thresholds[:1]}
    )
    table = table_of(threshold_table, [with_thresholds(), lacking])
    assert "Pixel F1@fpr0.05 undefined: pill: no mask" in notes(table)


def test_rules_that_chose_nothing_are_named_with_the_reason():
    reason = "7 normal images cannot support a rate of 0.01: at least 99 are needed"
    record = with_thresholds()
    names = ("image_f1@fpr0.01", "any_pixel_f1@image_fpr0.01")
    lacking = record.model_copy(
        update={"metrics": record.metrics | dict.fromkeys(names), "undefined": dict.fromkeys(names, reason)}
    )
    assert f"No threshold by fpr0.01, image_fpr0.01: {reason}." in notes(table_of(threshold_table, [lacking]))


def test_a_method_without_any_threshold_is_no_row_but_a_note():
    reason = "no normal images beside those fitted on and tested on"
    record = with_thresholds("dsr")
    names = ("image_f1@mean+3sd", "any_pixel_f1@mean+3sd", "image_f1@fpr0.05")
    without = record.model_copy(
        update={
            "thresholds": [],
            "metrics": record.metrics | dict.fromkeys(names),
            "undefined": dict.fromkeys(names, reason),
        }
    )
    table = table_of(threshold_table, [with_thresholds("patchcore"), without])
    assert {row[1] for row in texts(table)} == {"PatchCore"}
    assert f"No threshold for DSR: {reason}." in notes(table)


def test_halves_are_averaged_and_the_table_says_so():
    table = table_of(threshold_table, [with_thresholds(collection=LOCO, scenario="breakfast_box")])
    assert "mean over structural and logical anomalies" in notes(table)


@pytest.mark.parametrize("make", [threshold_table, condition_table])
def test_without_any_there_is_no_table(make):
    assert table_of(make, [make_record(), fail(make_record(seed=1), "no memory")]) is None
    assert table_of(make, [make_record(collection=LOCO, scenario="breakfast_box")]) is None


def lit(seed=0, **lights):
    lights = lights or {"regular": 0.9, "dark": 0.4, "over_exposed": 0.6, "changed": 0.5}
    metrics = {"image_au_roc": 0.7, "au_pro@0.05": 0.6, "pixel_f1@mean+3sd": 0.25, "any_pixel_f1@mean+3sd": 0.35}
    for name, value in lights.items():
        metrics |= {f"{name}/image_au_roc": value, f"{name}/au_pro@0.05": value / 2}
    return make_record(collection=AD_2, scenario="can", seed=seed, metrics=metrics)


def test_each_light_is_a_row():
    table = table_of(condition_table, [lit(), fail(lit(seed=1), "no memory")])
    assert [[row[0], *row[3:]] for row in texts(table)] == [
        ["all", "70.0", "60.0"],
        ["regular", "90.0", "45.0"],
        ["dark", "40.0", "20.0"],
        ["over_exposed", "60.0", "30.0"],
        ["changed", "50.0", "25.0"],
    ]
    assert "Test images of 3 conditions" in notes(table)


def test_the_accuracy_table_shows_changed_light_and_what_the_owners_evaluate():
    table = table_of(accuracy_table, [lit()])
    shown = dict(zip([column.title for column in table.columns], texts(table)[0], strict=True))
    assert shown["AU-PRO@0.05"] == "60.0"
    assert (shown["Regular AU-PRO@0.05"], shown["Changed AU-PRO@0.05"]) == ("45.0", "25.0")
    assert (shown["Pixel F1@mean+3sd"], shown["Any-pixel F1@mean+3sd"]) == ("25.0", "35.0")
    elsewhere = table_of(accuracy_table, [with_thresholds()])
    assert not any("F1@" in column.title for column in elsewhere.columns)


@pytest.mark.slow
def test_every_format_has_them_with_names_as_they_are(tmp_path):
    records = [with_thresholds(), lit(**{"regular": 0.9, "50%_&|<b>": 0.5})]
    files = make_report([write_run(tmp_path / "run", records, examples=False)], ("md", "tex", "csv"))
    text = files["report.md"].decode()
    assert "### MVTec AD, at thresholds chosen on normal images" in text
    assert r"50%\_&amp;\|&lt;b&gt;" in text
    assert r"50\%\_\&$|$$<$b$>$" in files["tables/mvtec_ad_2-light.tex"].decode().replace(r"\allowbreak{}", "")
    assert r"image\_{}fpr" in files["tables/mvtec_ad-thresholds.tex"].decode().replace(r"\_", r"\_{}")
    lines = list(csv.DictReader(io.StringIO(files["thresholds.csv"].decode())))
    assert len(lines) == 4
    assert (lines[0]["image_f1"], lines[0]["pixel_f1"], lines[0]["declared_fpr"]) == ("0.75", "", "")
    assert (lines[3]["rate_of"], lines[3]["declared_fpr"], lines[3]["pixel_f1"]) == ("images", "0.05", "0.75")


def test_tables_render_in_markdown_and_latex():
    table = table_of(threshold_table, [with_thresholds()])
    assert "| pixels, mean+3sd" in markdown.render_table(table)
    assert r"\begin{longtable}" in latex.render_table(table)


def test_what_became_of_files_stands_with_the_data():
    record = make_record()
    data = record.data.model_copy(update={"notes": ["2 files of unknown kind left out"], "bit_depth": 12})
    selection = select([(record.model_copy(update={"data": data}), None)])
    described = {item.name: item.text for part in provenance(selection) for item in part.items}
    assert described["MVTec AD, pill"].endswith(
        "; 12 bits per channel, of which the 8 highest are used; 2 files of unknown kind left out"
    )
