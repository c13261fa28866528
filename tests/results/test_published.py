from collections import defaultdict

import pytest

from results.errors import ResultError
from results.published import _number, published_accuracies, published_speeds


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
