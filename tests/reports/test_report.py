import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from record_factory import LOCO, fail, make_record, write_run

from reports.block import BEGIN, END, check_block, update_block
from reports.errors import ReportError
from reports.report import check_report, make_report, write_report
from results.errors import ResultError

GOLDEN = Path(__file__).parent / "golden"
ODD = "[*] $x^2$ 100% <検査> \\input{a} _a_ & #1 ~ | “q” naïve"


@pytest.fixture(scope="module")
def plain_report(plain_run) -> dict[str, bytes]:
    return make_report([plain_run], {"md", "tex", "csv"})


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["report.md", "report.tex", "tables/mvtec_ad.tex", "tables/mvtec_loco-scenarios.tex", "means.csv"]
)
def test_the_report_is_the_golden_one(plain_report, name):
    """After a wanted change, write the golden files anew with UPDATE_GOLDEN=1 and read the difference."""
    content = plain_report[name].decode()
    golden = GOLDEN / name.replace("/", "-")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(content)
    assert content == golden.read_text()


@pytest.mark.slow
def test_a_report_is_up_to_date_until_a_record_changes(tmp_path):
    records = [make_record()]
    run, out = write_run(tmp_path / "run", records), tmp_path / "out"
    written = write_report([run], out, {"md", "csv"})
    assert all(path.is_file() for path in written)
    assert check_report([run], out, {"md", "csv"}) == []
    write_run(run, [make_record(seed=1)], examples=False)
    assert out / "metrics.csv" in check_report([run], out, {"csv"})
    (out / "cells.csv").unlink()
    assert out / "cells.csv" in check_report([run], out, {"csv"})


@pytest.mark.slow
def test_figures_go_with_the_format(tmp_path):
    run = write_run(tmp_path, [make_record()])
    files = make_report([run], {"md"})
    figures = ["figures/mvtec_ad-accuracy.png", "figures/mvtec_ad-pill-examples.png"]
    assert [name for name in files if name != "report.md"] == figures
    assert re.findall(r"^!\[.*\]\((.*)\)$", files["report.md"].decode(), re.MULTILINE) == figures
    assert not any("figures" in name for name in make_report([run], {"csv"}))
    assert all(name.endswith((".tex", ".pdf")) for name in make_report([run], {"tex"}))


@pytest.mark.slow
def test_a_report_does_not_depend_on_where_and_when_it_is_made(tmp_path):
    records = [make_record(method, seed=seed) for method in ("dsr", "ast") for seed in (0, 1)]
    runs = [
        write_run(tmp_path / "here", records, examples=False),
        write_run(tmp_path / "elsewhere", records[::-1], examples=False),
    ]
    assert make_report(runs[:1], {"md", "csv"}) == make_report(runs[1:], {"md", "csv"})


def test_an_unknown_format_is_named(plain_run, tmp_path):
    with pytest.raises(ReportError, match=r"unknown report format html; allowed: md, tex, csv"):
        write_report([plain_run], tmp_path, {"md", "html"})


def test_an_unwritable_folder_is_named(plain_run, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ResultError, match="cannot write"):
        write_report([plain_run], tmp_path / "out", {"csv"})


def test_nothing_but_failures_is_a_report_too(tmp_path):
    run = write_run(tmp_path, [fail(make_record(), "no memory", log_tail="last words")])
    text = make_report([run], {"md"})["report.md"].decode()
    assert "every cell failed" in text
    assert "    last words" in text


@pytest.mark.slow
def test_a_failure_without_a_log_is_in_every_format(tmp_path):
    files = make_report(
        [write_run(tmp_path, [make_record(), fail(make_record("dsr"), "killed by hand")])], {"md", "tex"}
    )
    assert "killed by hand" in files["report.md"].decode()
    assert "killed by hand" in files["report.tex"].decode()


@pytest.mark.slow
def test_names_that_are_alike_as_files_stay_apart(tmp_path):
    run = write_run(tmp_path, [make_record(scenario=name) for name in ("a b", "a?b", "A_b")])
    names = [name for name in make_report([run], {"md"}) if name.endswith("examples.png")]
    assert len({name.casefold() for name in names}) == 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_as_it_is(tmp_path):
    records = [make_record(collection=LOCO, deviations=[ODD]), make_record(scenario=ODD, title=ODD, source=ODD)]
    records.append(fail(make_record("dsr", scenario=ODD), ODD, log_tail=f"{ODD}\n\n  {ODD}\\end{{document}}"))
    write_report([write_run(tmp_path / "run", records)], tmp_path, {"tex"})
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "undefined" not in done.stdout


def test_a_block_in_a_readme_is_kept_up_to_date(tmp_path, plain_run):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Mine\n\n{BEGIN}\nold\n{END}\n\nmore\n")
    assert not check_block(readme, [plain_run])
    assert update_block(readme, [plain_run])
    assert check_block(readme, [plain_run])
    assert not update_block(readme, [plain_run])
    text = readme.read_text()
    assert text.startswith(f"# Mine\n\n{BEGIN}\n\n**MVTec AD, mean over scenarios**")
    assert text.endswith(f"\n{END}\n\nmore\n")
    assert "| EfficientAD-S (a,b) |" in text
    assert "\n- b: backbone efficientnet_lite0 instead of wide_resnet101_2\n" in text
    assert "\n\nRun on Intel Xeon Platinum 8481C, torch 2.13.0.\n\n" in text


def test_no_name_breaks_out_of_a_block(tmp_path):
    collection = LOCO.model_copy(update={"title": f"{ODD} {END}", "note": END})
    records = [make_record(collection=collection, title=f"{END}\n{BEGIN}", deviations=[f"{ODD} {END}"])]
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\nmore\n")
    run = write_run(tmp_path / "run", records, examples=False)
    update_block(readme, [run])
    text = readme.read_text()
    assert (text.count(BEGIN), text.count(END)) == (1, 1)
    assert r"**\[\*\] \$x^2\$ 100% &lt;検査&gt; \\input{a} \_a\_ &amp; #1 ~ \| “q” naïve" in text
    assert check_block(readme, [run])
    assert not update_block(readme, [run])


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}"])
def test_a_file_without_markers_is_told_them(tmp_path, plain_run, text):
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(ReportError, match="put these two lines"):
        check_block(readme, [plain_run])


def test_another_encoding_is_refused(tmp_path, plain_run):
    readme = tmp_path / "README.md"
    readme.write_bytes(f"naïve\n{BEGIN}\n{END}\n".encode("latin-1"))
    with pytest.raises(ReportError, match="not UTF-8"):
        update_block(readme, [plain_run])


def test_a_missing_file_is_named(tmp_path, plain_run):
    with pytest.raises(ReportError, match="No such file"):
        check_block(tmp_path / "README.md", [plain_run])
