from datetime import UTC, datetime

import pytest
from record_factory import DEMO, LOCO, MVTEC, digest, fail, make_metrics, make_record, write_run

from reports.content.provenance import describe_rows
from reports.content.selection import read_runs, select
from reports.errors import ReportError
from results.record import Data

LATER = datetime(2027, 1, 1, tzinfo=UTC)


def chosen(*records):
    return select((record, None) for record in records)


def test_the_same_cell_of_two_runs_counts_once(tmp_path):
    record = make_record()
    runs = [write_run(tmp_path / name, [record], examples=False) for name in ("a", "b")]
    selection = read_runs(runs)
    assert [result.record for result in selection.results] == [record]
    assert selection.left_out == ()


def test_a_cell_that_worked_wins_over_the_same_that_failed():
    record = make_record()
    later_failure = fail(record, "no memory").model_copy(update={"created": LATER})
    assert [result.record for result in chosen(record, later_failure).results] == [record]


def test_of_a_cell_that_ran_again_with_other_code_the_newest_counts():
    old = make_record()
    new = old.model_copy(update={"key": "0" * 64, "created": LATER})
    selection = chosen(new, old)
    assert [result.record for result in selection.results] == [new]
    assert "1 older record" in selection.left_out[0]


def test_cells_on_other_files_of_a_scenario_are_left_out():
    changed = Data(fingerprint=digest("changed"), train=1, validation=1, test_normal=1, test_anomalous=1)
    old, new = make_record("ast"), make_record("dsr", data=changed, created=LATER)
    selection = chosen(old, new)
    assert [result.record.method for result in selection.results] == ["dsr"]
    assert "other files" in selection.left_out[0]


def test_a_failed_cell_that_knows_no_weights_stays_in_its_row():
    selection = chosen(make_record(), fail(make_record(seed=1), "no network"))
    (variant,) = selection.variants
    assert variant.label == "PatchCore"
    assert variant.weights


def test_other_options_make_another_row():
    selection = chosen(make_record(), make_record(config={"image_size": 320}), make_record("dsr"))
    assert [variant.label for variant in selection.variants] == ["DSR", "PatchCore #1", "PatchCore #2"]


def test_another_precision_makes_another_row():
    half = {"precision": "bf16", "deviations": ["precision bf16"]}
    selection = chosen(make_record(**half), make_record(), make_record(tf32=True), make_record(seed=1))
    assert [(variant.label, variant.precision, variant.tf32) for variant in selection.variants] == [
        ("PatchCore #1", "fp32", False),
        ("PatchCore #2", "fp32", True),
        ("PatchCore #3", "bf16", False),
    ]
    assert selection.variants[2].notes == ("preset embedded", "precision bf16")


def test_another_path_to_the_same_result_makes_no_other_row():
    fast, reference = ({"implementation": {"training step": path}} for path in ("fast", "reference"))
    selection = chosen(make_record(**fast), make_record(seed=1, **reference))
    assert [variant.label for variant in selection.variants] == ["PatchCore"]
    (row,) = describe_rows(selection)
    assert {item.name: item.text for item in row.items}["implementation"] == (
        "training step: fast; training step: reference"
    )


def test_collections_with_a_warning_come_last():
    selection = chosen(make_record(collection=DEMO), make_record(collection=MVTEC))
    assert [part.collection.name for part in selection.parts] == ["mvtec_ad", "demo"]


def test_scenarios_of_both_forms_are_never_averaged():
    saturated = make_record(collection=DEMO, scenario="coins", metrics=make_metrics("patchcore", LOCO, "coins", 0))
    selection = chosen(
        saturated, make_record(collection=DEMO, scenario="brick"), fail(make_record(collection=DEMO), "no")
    )
    assert [(part.title, [result.record.scenario for result in part.results]) for part in selection.parts] == [
        ("Demo (plain)", ["brick", "pill"]),
        ("Demo (saturated)", ["coins"]),
    ]
    assert len({part.stem for part in selection.parts}) == 2


def test_the_parts_of_a_complete_collection_are_complete():
    demo = DEMO.model_copy(update={"scenarios": 4})
    saturated = make_record(collection=demo, scenario="coins", metrics=make_metrics("patchcore", LOCO, "coins", 0))
    plain = [make_record(collection=demo, scenario=name) for name in ("brick", "grass", "gravel")]
    assert [part.collection.scenarios for part in chosen(saturated, *plain).parts] == [3, 1]
    assert [part.collection.scenarios for part in chosen(saturated, *plain[:2]).parts] == [None, None]


def test_the_order_of_records_does_not_matter():
    records = [make_record(method, seed=seed) for method in ("dsr", "ast") for seed in (1, 0)]
    assert chosen(*records) == chosen(*reversed(records))


def test_a_run_without_records_is_named(tmp_path):
    with pytest.raises(ReportError, match=r"no records in .*nothing"):
        read_runs([tmp_path / "nothing"])
