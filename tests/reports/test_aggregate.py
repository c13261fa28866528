from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_factory import MVTEC, fail, make_record, undefine

from reports.content.aggregate import aggregate, best_rows, compared, complete_grid
from reports.content.selection import select


def rows_of(records, *metrics):
    return aggregate(select((record, None) for record in records).results, metrics or ("image_au_roc",))


def with_value(method, scenario, seed, value, **changes):
    return make_record(method, MVTEC, scenario, seed, metrics={"image_au_roc": value}, **changes)


def test_the_mean_is_over_scenarios_and_then_over_seeds():
    values = {("a", 0): 0.9, ("b", 0): 0.7, ("a", 1): 1.0, ("b", 1): 0.8}
    (row,) = rows_of([with_value("dsr", *place, value) for place, value in values.items()])
    mean = row.means["image_au_roc"]
    assert mean.value == pytest.approx(0.85)
    assert mean.deviation == pytest.approx(stdev([0.8, 0.9]))
    assert (mean.scenarios, mean.seeds) == (2, 2)


def test_one_seed_has_no_deviation():
    (row,) = rows_of([with_value("dsr", "a", 0, 0.9)])
    assert row.means["image_au_roc"].deviation is None


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([("a", 0), ("a", 2)], [("a", 0), ("a", 2)]),
        # One of two scenarios lacks a seed: two scenarios with two seeds keep more than one with three.
        ([("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)], [("a", 0), ("a", 1), ("b", 0), ("b", 1)]),
        # One of four scenarios has one seed only: it goes.
        (
            [(name, seed) for name in "abc" for seed in (0, 1)] + [("d", 0)],
            [(name, seed) for name in "abc" for seed in (0, 1)],
        ),
        # Nothing is common to the seeds.
        ([("a", 0), ("b", 1)], []),
    ],
)
def test_each_seed_averages_the_same_scenarios(places, expected):
    assert complete_grid(places) == frozenset(expected)


@given(st.sets(st.tuples(st.sampled_from("abcd"), st.integers(0, 3))))
def test_a_grid_is_complete_and_made_of_what_is_there(places):
    grid = complete_grid(places)
    assert grid <= places
    assert len(grid) == len({name for name, _ in grid}) * len({seed for _, seed in grid})


def test_a_failed_cell_reduces_the_coverage():
    records = [with_value("dsr", name, seed, 0.9) for name in "ab" for seed in (0, 1)]
    records[3] = fail(records[3], "no memory")
    (row,) = rows_of(records)
    assert row.failed == 1
    assert row.coverage == {("a", 0), ("b", 0)}


def test_an_undefined_metric_reduces_only_its_own_coverage():
    records = [make_record("dsr", MVTEC, name) for name in "ab"]
    records[1] = undefine(records[1], "au_pro@0.3", "no defect pixel")
    (row,) = rows_of(records, "image_au_roc", "au_pro@0.3")
    assert row.means["image_au_roc"].coverage == row.coverage
    assert row.means["au_pro@0.3"].coverage == {("a", 0)}
    assert row.undefined("au_pro@0.3") == "b: no defect pixel"


def test_scenarios_share_a_reason():
    records = [
        undefine(make_record("dsr", MVTEC, name, seed), "au_pro@0.3", "no masks") for name in "abcde" for seed in (0, 1)
    ]
    assert rows_of(records[:4])[0].undefined("au_pro@0.3") == "a, b: no masks"
    assert rows_of(records)[0].undefined("au_pro@0.3") == "a, b, c and 2 others: no masks"
    records[8:] = [undefine(make_record("dsr", MVTEC, "e", seed), "au_pro@0.3", "no defect") for seed in (0, 1)]
    assert rows_of(records)[0].undefined("au_pro@0.3") == "a, b, c, d: no masks; e: no defect"


def test_nothing_left_has_no_mean():
    (row,) = rows_of([fail(with_value("dsr", "a", 0, 0.9), "no memory")])
    assert row.means["image_au_roc"].value is None
    assert row.undefined("image_au_roc") == "every cell failed"


def test_only_rows_of_equal_coverage_are_compared():
    records = [with_value("ast", "a", 0, 0.8), with_value("ast", "b", 0, 0.8), with_value("dsr", "a", 0, 1.0)]
    records += [with_value("fastflow", name, 0, 0.7) for name in "ab"]
    rows = rows_of(records)
    assert [row.variant.method for row in rows] == ["ast", "dsr", "fastflow"]
    assert compared(rows) == [True, False, True]
    assert best_rows(rows, "image_au_roc") == [True, False, False]


@pytest.mark.parametrize("other", [{"train_scale": 0.01}, {"protocol_hash": "6" * 64}])
def test_rows_of_another_protocol_or_train_scale_are_not_compared(other):
    rows = rows_of([with_value("ast", "a", 0, 0.8), with_value("dsr", "a", 0, 0.9, **other)])
    assert compared(rows) == [True, False]
    assert best_rows(rows, "image_au_roc") == [False, False]


def test_values_that_print_alike_are_all_best():
    values = {"ast": 0.98740, "dsr": 0.98744, "fastflow": 0.9864}
    rows = rows_of([with_value(method, "a", 0, value) for method, value in values.items()])
    assert best_rows(rows, "image_au_roc") == [True, True, False]


def test_a_single_row_is_never_best():
    assert best_rows(rows_of([with_value("ast", "a", 0, 0.8)]), "image_au_roc") == [False]
