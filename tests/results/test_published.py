from collections import defaultdict

import pytest

from results.errors import ResultError
from results.published import (
    _number,
    published_accuracies,
    published_efficiencies,
    published_latencies,
    published_speeds,
)


def test_published_numbers_are_those_of_the_paper():
    values = {(row.method, row.collection, row.metric): row.value for row in published_accuracies()}
    assert values["efficientad_s", "mvtec_ad", "image_au_roc"] == pytest.approx(0.988)
    assert values["efficientad_m", "visa", "au_pro@0.3"] == pytest.approx(0.940)
    assert values["gcad", "mvtec_loco", "au_spro@0.05"] == pytest.approx(0.680)
    assert values["simplenet", "visa", "image_au_roc"] == pytest.approx(0.879)
    assert len(values) == len(published_accuracies())


def test_the_mean_of_structural_and_logical_is_the_published_mean():
    by_row = defaultdict(dict)
    for row in published_accuracies():
        if row.collection == "mvtec_loco":
            half, _, metric = row.metric.rpartition("/")
            by_row[row.method, metric][half] = row.value
    for halves in by_row.values():
        assert halves[""] == pytest.approx((halves["structural"] + halves["logical"]) / 2, abs=0.00101)


def test_every_method_with_an_accuracy_has_a_speed():
    speeds = {row.method: row for row in published_speeds()}
    assert set(speeds) == {row.method for row in published_accuracies()}
    assert speeds["efficientad_s"].latency_ms == 2.2
    assert speeds["efficientad_s"].throughput == 614


@pytest.mark.parametrize("text", ["", "nan", "-1", "101", "9,5"])
def test_a_damaged_number_is_refused(text):
    with pytest.raises(ResultError, match="published"):
        _number(text, 0, 100)


def test_methods_are_called_as_in_the_registry():
    from methods.registry import BUILT_IN

    assert {row.method for row in published_accuracies()} <= {*BUILT_IN, "dsr"}


def test_latencies_by_gpu_round_to_those_of_the_first_table():
    rows = published_latencies()
    assert len({row.device for row in rows}) == 5
    assert {(row.method, row.device): row.latency_ms for row in rows}["patchcore", "Tesla V100"] == 47.1
    on_a6000 = {row.method: row.latency_ms for row in rows if row.device == "NVIDIA RTX A6000"}
    speeds = {row.method: row.latency_ms for row in published_speeds()}
    # The first table prints whole milliseconds from 10 on, and 16.5 as 17.
    assert all(abs(value - speeds[method]) <= 0.5 for method, value in on_a6000.items())
    assert len(on_a6000) == 9


def test_published_costs_are_those_of_the_paper():
    rows = {row.method: row for row in published_efficiencies()}
    assert (rows["patchcore"].parameters, rows["patchcore"].memory_bank, rows["patchcore"].flops) == (83, 3, 41)
    assert {method for method, row in rows.items() if row.memory_bank} == {"patchcore", "patchcore_ens"}
    assert rows["efficientad_s"].memory_mb == 100
