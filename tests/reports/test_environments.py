import pytest
from record_factory import fail, make_record

from reports.content.environments import environment_differences
from reports.content.provenance import describe_rows
from reports.content.selection import select
from reports.content.tables import accuracy_table, scenario_table

USUAL = make_record().environment
NOTE = "records of this row come from different environments: "


def changed(**changes):
    return USUAL.model_copy(update=changes)


def packages(**versions):
    return changed(packages={**USUAL.packages, **versions})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (packages(torch="2.9.1"), "torch 2.9.1, 2.13.0"),
        (packages(torch="2.14.0", numpy="2.5.0"), "numpy 2.4.6, 2.5.0; torch 2.13.0, 2.14.0"),
        (packages(faiss="1.15"), "faiss 1.15, none"),
        (changed(python="3.12.1"), "Python 3.11.7, 3.12.1"),
        (changed(cpu="AMD EPYC 7763"), "CPU AMD EPYC 7763, Intel Xeon Platinum 8481C"),
        (changed(gpu="NVIDIA H100", python="3.12.1"), "GPU NVIDIA H100, none; Python 3.11.7, 3.12.1"),
        (changed(packages=dict(reversed(USUAL.packages.items()))), ""),
        (changed(threads=8, device="cuda:1", platform="Linux-6.8", driver="570.1", git_commit="0" * 40), ""),
    ],
)
def test_versions_and_models_that_differ_are_named(environment, expected):
    records = [make_record(), make_record(seed=1, environment=environment), make_record(seed=2)]
    assert environment_differences(records) == expected


def test_a_row_of_different_environments_is_marked_and_only_that_one():
    other = packages(torch="2.14.0")
    records = [make_record(method, scenario=name) for method in ("ast", "dsr") for name in ("pill", "zipper")]
    records[3] = make_record("dsr", scenario="zipper", environment=other)
    selection = select((record, None) for record in records)
    (part,) = selection.parts
    table = accuracy_table(part)
    (note,) = [note for note in table.notes if note.text.startswith(NOTE)]
    assert note.text == f"{NOTE}torch 2.13.0, 2.14.0"
    assert [note.mark in row[0].marks for row in table.rows] == [False, True]
    # Of one scenario each row has one environment.
    assert not [note for note in scenario_table(part).notes if note.text.startswith(NOTE)]
    rows = [{item.name: item.text for item in row.items} for row in describe_rows(selection)]
    assert [row.get("different environments") for row in rows] == [None, "torch 2.13.0, 2.14.0"]


def test_a_cell_that_failed_elsewhere_marks_nothing():
    failed = fail(make_record(seed=1, environment=packages(torch="2.14.0")), "no memory")
    assert environment_differences([make_record(), failed]) == ""
