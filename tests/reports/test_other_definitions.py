from record_factory import DEMO, DEMO_NOTE, MVTEC, fail, make_record, write_run

from reports.content.other_definitions import WARNING, definition_spread, definitions_table
from reports.content.selection import read_runs
from reports.rendering.figures.definition_spread import draw_definition_spread
from reports.rendering.figures.style import encode
from reports.rendering.latex import render_table
from reports.report import make_report
from results.definition_values import DefinitionValue, write_definitions
from results.store import RunStore


def values(exact, ranks, bins):
    def value(name, number):
        deviation = None if number is None else number - exact
        return DefinitionValue(name=name, description=f"how {name}", source="a", value=number, deviation=deviation)

    return [value("exact", exact), value("100 ranks & more", ranks), value("bins", bins)]


def gather(root, pairs):
    store = RunStore(root)
    write_run(root, [record for record, _ in pairs], examples=False)
    for record, found in pairs:
        if found:
            write_definitions(store.cell_directory(record), found)
    return [found for part in read_runs([root]).parts if (found := definition_spread(part)) is not None]


def texts(table):
    return [[field.text for field in row] for row in table.rows]


def test_values_are_means_and_differences_from_the_exact_one(tmp_path):
    pairs = [
        (make_record("dsr", scenario="pill"), values(0.8, 0.7, None)),
        (make_record("dsr", scenario="screw"), values(0.6, 0.604, 0.9)),
        (make_record("ast", scenario="pill"), values(0.5, 0.9, 0.50001)),
        (make_record("gcad"), None),
    ]
    (found,) = gather(tmp_path, pairs)
    table = definitions_table(found)
    assert [column.title for column in table.columns] == ["Definition", "AST", "DSR"]
    assert texts(table) == [
        ["exact", "50.0", "70.0"],
        ["100 ranks & more", "90.0 (+40.0)", "65.2 (−4.8)"],
        ["bins", "50.0 (0.0)", "–"],  # where one cell has no value the mean would be of other cells
    ]
    notes = [note.text for note in table.notes]
    assert notes[0] == WARNING
    assert "mean over 1 scenario and 1 seed or 2 scenarios and 1 seed" in notes[1]
    assert "how bins; source: a" in notes
    assert not any(field.best for row in table.rows for field in row)
    assert "($-$4.8)" in render_table(table)


def test_only_complete_seeds_are_averaged(tmp_path):
    pairs = [(make_record(scenario=s, seed=0), values(0.5, 0.5, 0.5)) for s in ("pill", "screw")]
    pairs.append((make_record(scenario="pill", seed=1), values(0.9, 0.9, 0.9)))
    (found,) = gather(tmp_path, pairs)
    assert texts(definitions_table(found))[0] == ["exact", "50.0"]


def test_cells_without_other_definitions_add_nothing(tmp_path):
    assert gather(tmp_path, [(make_record(), None), (fail(make_record(seed=1), "no"), None)]) == []
    files = make_report([tmp_path], {"md", "csv"})
    assert "definitions.csv" not in files
    assert "definitions" not in files["report.md"].decode()


def test_the_demos_note_stands_on_table_and_figure(tmp_path):
    pairs = [(make_record(collection=DEMO, scenario="brick"), values(0.5, 0.4, 0.3)), (make_record(), values(1, 1, 1))]
    found = {each.stem: each for each in gather(tmp_path, pairs)}
    assert set(found) == {"demo-definitions", f"{MVTEC.name}-definitions"}
    assert DEMO_NOTE in [note.text for note in definitions_table(found["demo-definitions"]).notes]
    figure = draw_definition_spread(found["demo-definitions"])
    shown = " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
    assert DEMO_NOTE in " ".join(shown.split())
    assert "100 ranks & more" in shown
    assert encode(figure, "png") == encode(draw_definition_spread(found["demo-definitions"]), "png")
