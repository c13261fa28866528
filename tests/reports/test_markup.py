import csv
import io

import pytest
from record_factory import fail, make_record, undefine
from rich.cells import cell_len

from reports.content.selection import select
from reports.content.tables import Column, Field, Note, Table
from reports.rendering import latex, markdown
from reports.rendering.delimited import cells_csv, means_csv, metrics_csv, protect

BREAK = r"\allowbreak{}"
TABLE = Table(
    "T",
    (Column("Scenario"), Column("AU-PRO@0.3", numeric=True)),
    ((Field("検査"), Field("98.7 ± 0.1", ("a",), best=True)), (Field("a|b", ("†",)), Field("–"))),
    (Note("", "Percent."), Note("a", "no <defect>")),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metal_nut au_pro@0.3", "metal_nut au_pro@0.3"),
        ("_emphasis_ __init__", r"\_emphasis\_ \_\_init\_\_"),
        ("a|b *c* `d` [e](f)", r"a\|b \*c\* \`d\` \[e\](f)"),
        ("<script>&amp;", "&lt;script&gt;&amp;amp;"),
        ("two\nlines\x00", "two lines"),
        ("# head", r"\# head"),
        ("1. item", r"\1. item"),
        ("~~gone~~", r"\~\~gone\~\~"),
        ("C:\\temp", r"C:\\temp"),
        ("$x$", r"\$x\$"),
    ],
)
def test_markdown_shows_any_name_as_it_is(text, expected):
    assert markdown.escape(text) == expected


def test_markdown_columns_are_aligned():
    lines = markdown.render_table(TABLE).splitlines()[:4]
    assert len({cell_len(line) for line in lines}) == 1
    assert lines[2].endswith("**98.7 ± 0.1** (a) |")


def test_no_log_ends_its_block():
    assert markdown.preformatted("```\n# a\n\tb\x1b[0m") == "    ```\n    # a\n            b[0m"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & a_b #1 $x$ {y}", r"50\% \& a\_b \#1 \$x\$ $\{$y$\}$"),
        ("a\\b", r"a$\backslash$b"),
        ("98.7 ± 0.1 – †", r"98.7 $\pm$ 0.1 --{} $\dagger$"),
        ("two\nlines", "two lines"),
        ("naïve", "naïve"),
        ("検", r"\texttt{[U+691C]}"),
        ("AU-PRO --out", "AU-PRO -{}-out"),
        ("[1] *", "{[}1{]} {*}"),
    ],
)
def test_latex_prints_any_name_as_it_is(text, expected):
    assert latex.escape(text) == expected


def test_latex_breaks_long_names_and_keeps_words_apart():
    assert latex.breakable("a/b, c") == "a/b, c"
    assert (
        latex.breakable("a_long_path/name.png")
        == r"a\_\allowbreak{}long\_\allowbreak{}path/\allowbreak{}name.\allowbreak{}png"
    )
    assert latex.log_lines("if:\n  x\n\ny") == "if:\\\\\n~~x\\\\\n~\\\\\ny"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_spreadsheet_takes_no_text_for_a_formula(text):
    assert protect(text) == f"'{text}"


def test_csv_holds_every_number_in_full():
    half = {"precision": "bf16", "fit_key": "ab" * 32, "implementation": {"search": "faiss"}}
    record = undefine(make_record(title="=cmd()", **half), "au_pro@0.3", "no, defect")
    failed = fail(make_record(seed=1, interrupted=["its worker died", "its node was lost"]), 'line\n"quoted"')
    selection = select([(record, None), (failed, None)])
    lines = list(csv.DictReader(io.StringIO(metrics_csv(selection))))
    assert {line["metric"]: line["value"] for line in lines} == {
        name: "" if value is None else repr(value) for name, value in record.metrics.items()
    }
    assert {line["undefined"] for line in lines} == {"", "no, defect"}
    assert {line["title"] for line in lines} == {"'=cmd()"}
    results = list(csv.DictReader(io.StringIO(cells_csv(selection))))
    assert [(result["status"], result["failure"]) for result in results] == [("ok", ""), ("failed", 'line\n"quoted"')]
    assert [result["interrupted"] for result in results] == ["0", "2"]
    assert [
        (result["precision"], result["tf32"], result["fit_key"], result["implementation"]) for result in results
    ] == [
        ("bf16", "False", "ab" * 32, "search: faiss"),
        ("fp32", "False", "", ""),
    ]
    means = list(csv.DictReader(io.StringIO(means_csv(selection))))
    assert {line["of_scenarios"] for line in means} == {"15"}


def test_csv_of_nothing_but_failures_has_a_head():
    selection = select([(fail(make_record(), "no"), None)])
    assert metrics_csv(selection).startswith("method,title,collection,scenario,seed,train_scale,metric,value")
