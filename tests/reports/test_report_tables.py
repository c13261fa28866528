import pytest
from record_factory import DEMO, DEMO_NOTE, LOCO, MVTEC, fail, make_record, typical_records, undefine
from rich.console import Console

from reports.content.selection import select
from reports.content.tables import accuracy_table, failure_table, published_table, scenario_table
from reports.rendering.terminal import summary_table


def table_of(make, records):
    (part,) = select((record, None) for record in records).parts
    return make(part)


def texts(table):
    return [[field.text for field in row] for row in table.rows]


def notes(table):
    return "\n".join(f"{note.mark}: {note.text}" for note in table.notes)


def test_coverage_says_of_how_many():
    table = table_of(accuracy_table, [make_record(seed=seed) for seed in (0, 1)])
    assert texts(table)[0][1] == "1 of 15 scenarios, 2 seeds"
    assert texts(table_of(accuracy_table, [make_record(collection=DEMO)]))[0][1] == "1 scenario, 1 seed"


def test_percent_have_one_decimal_and_a_deviation_over_seeds():
    records = [make_record(seed=seed, metrics={"image_au_roc": value}) for seed, value in enumerate((0.98, 0.99, 1.0))]
    assert texts(table_of(accuracy_table, records))[0][2] == "99.0 ± 1.0"
    assert texts(table_of(accuracy_table, records[:1]))[0][2] == "98.0"


def test_a_row_shows_what_differs_from_its_paper():
    table = table_of(accuracy_table, [make_record()])
    assert table.rows[0][0].marks == ("a", "b")
    assert "a: preset embedded" in notes(table)
    assert "b: backbone efficientnet_lite0 instead of" in notes(table)


def test_another_coverage_is_marked_and_never_best():
    records = [make_record("ast", MVTEC, name) for name in ("pill", "zipper")]
    records += [make_record("dsr", MVTEC, name) for name in ("pill", "zipper")]
    records += [make_record("efficientad_m", MVTEC, "pill")]
    table = table_of(accuracy_table, records)
    assert [row[1].marks for row in table.rows] == [(), (), ("†",)]
    assert [row[2].best for row in table.rows] == [True, False, False]
    assert "†: other scenarios" in notes(table)


def test_a_failed_cell_is_noted():
    table = table_of(accuracy_table, [make_record(), fail(make_record(seed=1), "no memory")])
    assert "1 of 2 cells failed" in notes(table)


def test_an_undefined_metric_is_a_dash_with_a_reason():
    table = table_of(accuracy_table, [undefine(make_record(), "au_pro@0.3", "no defect pixel in any mask")])
    field = table.rows[0][[column.title for column in table.columns].index("AU-PRO@0.3")]
    assert field.text == "–"
    assert f"{field.marks[0]}: AU-PRO@0.3 undefined: pill: no defect pixel in any mask" in notes(table)


@pytest.mark.parametrize("make", [accuracy_table, scenario_table])
def test_the_demo_is_labelled_and_has_no_winner(make):
    table = table_of(make, [make_record(method, DEMO, "brick") for method in ("ast", "dsr")])
    assert DEMO_NOTE in notes(table)
    assert not any(field.best for row in table.rows for field in row)


@pytest.mark.parametrize("make", [accuracy_table, scenario_table])
def test_a_train_scale_is_stamped(make):
    assert "train scale 0.01" in notes(table_of(make, [make_record(train_scale=0.01)]))
    mixed = table_of(make, [make_record("ast", train_scale=0.01), make_record("dsr")])
    assert "train scales differ" in notes(mixed)
    assert "a: train scale 0.01" in notes(mixed)


def test_a_saturated_collection_shows_its_halves_and_their_mean():
    table = table_of(accuracy_table, [make_record(collection=LOCO)])
    assert [column.title for column in table.columns[2:]] == [
        "Structural image AU-ROC",
        "Logical image AU-ROC",
        "Mean image AU-ROC",
        "Structural AU-sPRO@0.05",
        "Logical AU-sPRO@0.05",
        "Mean AU-sPRO@0.05",
    ]


def test_published_numbers_are_labelled_and_apart():
    table = table_of(published_table, [make_record("simplenet"), make_record("rdpp")])
    assert "published" in table.title
    assert texts(table) == [["SimpleNet", "98.2", "12", "194"]]
    assert "review slides" in notes(table)
    assert table_of(published_table, [make_record(collection=DEMO)]) is None


def test_failures_have_their_reasons():
    results = select([(fail(make_record(), "no memory", "memory"), None)]).results
    assert texts(failure_table(results)) == [["PatchCore", "mvtec_ad/pill", "0", "memory", "no memory"]]


def test_the_terminal_shows_coverage_notes_and_failures():
    console = Console(width=100, record=True, file=open_null())
    console.print(summary_table(typical_records()))
    shown = console.export_text()
    for expected in ("2 of 15 scenarios, 3 seeds", "98.3 ± 0.1", DEMO_NOTE, "a: preset embedded", "killed at 12.5 GiB"):
        assert expected in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_terminal_takes_names_literally():
    console = Console(width=100, record=True, file=open_null())
    console.print(summary_table([make_record(title="[red]Mine[/red]")]))
    assert "[red]Mine[/red]" in console.export_text()


def open_null():
    import io

    return io.StringIO()
