import sys
from dataclasses import replace

import numpy as np
import pytest
from record_factory import DEMO, DEMO_NOTE, LOCO, METHODS, MVTEC, fail, make_record, write_run

from reports.content.document import make_document
from reports.content.dot_plot import dot_plot
from reports.content.example_sheet import example_sheets
from reports.content.selection import read_runs, select
from reports.rendering.figures.dots import draw_dots
from reports.rendering.figures.draw import draw
from reports.rendering.figures.examples import draw_examples
from reports.rendering.figures.style import encode, plain, wrap
from results.arrays import Example, read_examples, write_examples
from results.store import RunStore

ODD = "$x^2$ 100% <検査> \\frac _a_ & a very long name that does not fit into any place at all"


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def plot_of(found):
    (part,) = select(found).parts
    return dot_plot(part)


def sheets_of(root, records, notes=()):
    return example_sheets(read_runs([write_run(root, records)]).results, notes)


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(tmp_path):
    (sheet,) = sheets_of(tmp_path, [make_record()])
    plot = plot_of([(make_record(), None)])
    assert encode(draw_examples(sheet), "png") == encode(draw_examples(sheet), "png")
    assert encode(draw_dots(plot), "pdf") == encode(draw_dots(plot), "pdf")


@pytest.mark.slow
def test_nothing_of_the_users_settings_is_used_or_changed(tmp_path):
    import matplotlib as mpl

    (sheet,) = sheets_of(tmp_path, [make_record()])
    before = encode(draw_examples(sheet), "png")
    with mpl.rc_context({"font.size": 20, "image.cmap": "gray", "savefig.facecolor": "red"}):
        assert encode(draw_examples(sheet), "png") == before
        assert mpl.rcParams["font.size"] == 20
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_rows_are_normal_first_and_columns_one_per_method(tmp_path):
    (sheet,) = sheets_of(tmp_path, [make_record("dsr"), make_record("ast"), make_record("ast", seed=1)])
    assert [sheet.defects[name] for name in sheet.names] == ["normal"] * 2 + [
        "color",
        "crack",
        "missing part",
        "scratch",
    ]
    assert [label for label, _ in sheet.methods] == ["AST", "DSR"]
    assert "seed 0" in sheet.title


def test_labels_of_rows_stand_in_line_whatever_the_images_shapes(tmp_path):
    (sheet,) = sheets_of(tmp_path, [make_record("dsr")])
    first = sheet.images[sheet.names[0]]
    upright = replace(first, image=first.image[:, :20], mask=first.mask[:, :20], map=first.map[:, :20])
    sheet = replace(sheet, images={**sheet.images, sheet.names[0]: upright})
    labels = [text for text in draw_examples(sheet).texts if text.get_rotation() == 90]
    assert [label.get_text().replace("\n", " ") for label in labels] == [sheet.defects[name] for name in sheet.names]
    assert len({label.get_position()[0] for label in labels}) == 1


def test_each_method_has_one_colour_scale(tmp_path):
    (sheet,) = sheets_of(tmp_path, [make_record("dsr"), make_record("ast")])
    axes = draw_examples(sheet).axes
    for title, examples in sheet.methods:
        first = next(index for index, one in enumerate(axes) if one.get_title() == title)
        scales = {one.images[0].get_clim() for one in axes[first : first + len(sheet.names)]}
        maps = [example.map for example in examples.values()]
        assert scales == {(min(map(np.min, maps)), max(map(np.max, maps)))}


def test_many_methods_go_to_several_figures(tmp_path):
    sheets = sheets_of(tmp_path, [make_record(method) for method in METHODS])
    assert [len(sheet.methods) for sheet in sheets] == [6, 6]
    assert "part 2 of 2" in sheets[1].title


def test_a_missing_map_is_said(tmp_path):
    records = [make_record("dsr"), make_record("ast")]
    run = write_run(tmp_path, records)
    directory = RunStore(run).cell_directory(records[0])
    write_examples(directory, read_examples(directory)[1:])
    (sheet,) = example_sheets(read_runs([run]).results, ())
    assert "no map" in words(draw_examples(sheet))


def test_constant_maps_and_flat_images_can_be_drawn(tmp_path):
    record = make_record()
    run = write_run(tmp_path, [record], examples=False)
    flat = Example(
        "test/good/000", np.zeros((4, 256, 3), np.uint8), np.zeros((4, 256), bool), np.ones((4, 256), np.float32)
    )
    write_examples(RunStore(run).cell_directory(record), [flat])
    (sheet,) = example_sheets(read_runs([run]).results, ())
    assert encode(draw_examples(sheet), "png").startswith(b"\x89PNG")


@pytest.mark.slow
def test_odd_names_can_be_drawn(tmp_path):
    records = [make_record("dsr", MVTEC, ODD, title=ODD)]
    (sheet,) = sheets_of(tmp_path, records, (ODD,))
    assert encode(draw_examples(sheet), "png").startswith(b"\x89PNG")
    plot = plot_of((record, None) for record in records)
    assert encode(draw_dots(plot), "png").startswith(b"\x89PNG")


@pytest.mark.slow
def test_what_must_be_said_is_in_the_picture(tmp_path):
    record = make_record(collection=DEMO, train_scale=0.01)
    pictures = make_document(read_runs([write_run(tmp_path, [record])])).sections[0].figures
    assert len(pictures) == 2
    for picture in pictures:
        shown = words(draw(picture.shows)).replace("\n", " ")
        assert DEMO_NOTE in shown
        assert "train scale 0.01" in shown
        assert DEMO_NOTE in picture.description


def test_every_cell_is_a_dot_and_published_means_are_hollow():
    records = [make_record("dsr", MVTEC, scenario, seed) for scenario in ("pill", "zipper") for seed in (0, 1)]
    figure = draw_dots(plot_of((record, None) for record in records))
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in dots) == 4
    assert len({line.get_color() for line in dots}) == len(dots) == 2
    means = [line for line in figure.axes[0].lines if line.get_marker() == "D" and len(line.get_xdata()) == 1]
    assert [line.get_markerfacecolor() for line in means].count("none") == 1
    assert "published mean" in words(figure)


def test_a_saturated_collection_has_a_panel_per_half():
    plot = plot_of([(make_record(collection=LOCO), None)])
    assert [axes.get_title() for axes in draw_dots(plot).axes] == [
        "Structural image AU-ROC",
        "Logical image AU-ROC",
        "Structural AU-sPRO@0.05",
        "Logical AU-sPRO@0.05",
    ]


def test_failed_cells_make_no_plot():
    assert plot_of([(fail(make_record(), "no"), None)]) is None


@pytest.mark.parametrize(
    ("text", "width", "lines", "expected"),
    [("", 5, 2, ""), ("ab cd ef", 5, 2, "ab cd\nef"), ("abcdefgh", 5, 1, "abcd…"), ("ab cd ef gh", 5, 1, "ab c…")],
)
def test_long_labels_are_broken(text, width, lines, expected):
    assert wrap(text, width, lines) == expected


def test_letters_that_the_font_lacks_are_marked():
    assert plain("a$検\nb") == r"a\$� b"
