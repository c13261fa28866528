"""What a report says of timings."""

from pathlib import Path

import pytest
from timing_factory import GPUS, METHODS, make_timing, write_machines

from reports.content.latency_plot import latency_plots
from reports.content.tables import Table
from reports.content.timings import milliseconds, select_timings, timing_tables
from reports.rendering.figures.draw import draw
from reports.rendering.figures.style import encode
from reports.report import check_report, write_report
from results.timing_record import Line, Reason
from results.timing_store import append_timing

DRIFT = Reason(check="V5", status="SUSPECT", text="the last quarter of the passes took +3.0% of the first's time")
SHARED = Reason(check="V4", status="INVALID", text="2 other processes were on the GPU")


def texts(table: Table) -> list[list[str]]:
    return [[field.text for field in row] for row in table.rows]


def notes(table: Table) -> str:
    return "\n".join(note.text for note in table.notes)


def write(folder: Path, *records: object) -> Path:
    for record in records:
        append_timing(folder / "some.jsonl", record)  # type: ignore[arg-type]
    return folder


def test_five_machines_make_the_papers_table(tmp_path: Path) -> None:
    tables = timing_tables(select_timings(write_machines(tmp_path)))
    latency, throughput = tables["timing-paper-latency"], tables["timing-paper-throughput"]
    heads = [column.title for column in latency.columns]
    assert heads[:2] == ["Method", "Setting"]
    assert sorted(head.partition(",")[0] for head in heads[2:]) == sorted(GPUS)
    assert len(heads) == 7
    assert [row[0] for row in texts(latency)] == sorted(title for title, *_ in METHODS.values())
    # Three processes of 2.2, 2.2088 and 2.2176 ms.
    row = dict(zip(heads, next(row for row in texts(latency) if row[0] == "EfficientAD-S"), strict=True))
    assert row["NVIDIA RTX A6000, 300 W (0000)"] == "2.21 ± 0.009"
    rates = dict(zip(heads, next(row for row in texts(throughput) if row[0] == "EfficientAD-S"), strict=True))
    assert rates["NVIDIA RTX A6000, 300 W (0000)"].startswith("647 ± ")
    assert "timing-invalid" not in tables
    assert "images in host memory to maps and scores on the device, by cuda-events" in notes(latency)


def test_two_machines_with_the_same_gpu_stay_two_columns(tmp_path: Path) -> None:
    timings = select_timings([write(tmp_path, make_timing(number=1), make_timing(number=2))])
    assert len(timing_tables(timings)["timing-paper-latency"].columns) == 4


def test_a_machine_that_lacks_a_method_has_a_dash_there(tmp_path: Path) -> None:
    other = make_timing("ast", "Tesla V100", number=2)
    table = timing_tables(select_timings([write(tmp_path, make_timing(), other)]))["timing-paper-latency"]
    by_method = {row[0]: row[2:] for row in texts(table)}
    assert by_method == {"AST": ["–", "84.8"], "EfficientAD-S": ["2.20", "–"]}


def test_processors_never_stand_beside_gpus(tmp_path: Path) -> None:
    records = [make_timing(gpu=None, process=process, number=9) for process in range(3)]
    tables = timing_tables(select_timings([write(tmp_path, make_timing(), *records)]))
    (row,) = texts(tables["timing-cpu-1"])
    assert row[:3] == ["EfficientAD-S", "eager, fp32, 256×256", "1"]
    assert row[-2:] == ["3 × 1,000", "VALID"]
    assert tables["timing-cpu-1"].title == "Some Processor, 8 threads (0000), protocol paper"
    assert "Some Processor" not in str(tables["timing-paper-latency"].columns)


def test_suspect_rows_are_marked_and_invalid_ones_stand_apart(tmp_path: Path) -> None:
    suspect = [make_timing(process=process, reasons=(DRIFT,)) for process in range(3)]
    invalid = [make_timing("ast", process=process, reasons=(SHARED,)) for process in range(3)]
    tables = timing_tables(select_timings([write(tmp_path, *suspect, *invalid)]))
    latency = tables["timing-paper-latency"]
    assert [row[0] for row in texts(latency)] == ["EfficientAD-S"]
    assert latency.rows[0][2].marks
    assert "SUSPECT: the last quarter of the passes took +3.0%" in notes(latency)
    (row,) = texts(tables["timing-invalid"])
    assert row[0] == "AST"
    assert "2 other processes were on the GPU (in 3 of 3 processes) (V4)" in row[3]


def test_costs_are_those_of_the_papers_table_with_the_bank_apart(tmp_path: Path) -> None:
    records = [make_timing(method) for method in ("efficientad_s", "patchcore")]
    tables = timing_tables(select_timings([write(tmp_path, *records)]))
    assert texts(tables["timing-costs"]) == [
        ["EfficientAD-S", "256×256", "8.058", "75.895", "100"],
        ["PatchCore", "256×256", "82.870 + 3.200", "41.200 + 5.000", "100"],
    ]
    published = {row[0]: row[1:] for row in texts(tables["timing-costs-published"])}
    assert published["PatchCore"][:2] == ["83 + 3", "41 + kNN"]
    assert texts(tables["timing-latency-published"])[0][0] == "EfficientAD-S"


def test_a_line_says_what_is_shown_and_what_is_not(tmp_path: Path) -> None:
    line = Line(
        rate=40, arrivals="fixed", deadline_ms=20, triggers=1000, missed=2, miss_bound=0.0063,
        response=make_timing().wall, greatest_backlog=3, sustainable_rate=None, sustainable_at=1e-4,
    )  # fmt: skip
    records = [make_timing(process=process, line=line) for process in range(3)]
    tables = timing_tables(select_timings([write(tmp_path, *records)]))
    (row,) = texts(tables["timing-line"])
    assert row[2:] == ["40", "20", "6 of 3,000", "0.63 %", "3", "not shown", "VALID"]
    assert "timing-paper-latency" not in tables, "passes of a line are no latency"


def test_published_latencies_are_hollow_and_of_the_same_gpu(tmp_path: Path) -> None:
    plots = latency_plots(select_timings(write_machines(tmp_path, batches=(1,))))
    assert len(plots) == 5
    by_device = {plot.title.partition(",")[0]: plot for plot in plots.values()}
    a6000 = {line.label: line.published for line in by_device["NVIDIA RTX A6000"].lines}
    assert a6000 == {"EfficientAD-S": 2.2, "EfficientAD-M": 4.5, "PatchCore": 32.0, "AST": 53.1}
    labels = [line.label for line in by_device["Tesla V100"].lines]
    assert labels == ["EfficientAD-S", "EfficientAD-M", "PatchCore", "AST"], "fastest first"
    for plot in plots.values():
        assert encode(draw(plot), "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.012"), (0.5, "0.50"), (2.204, "2.20"), (53.04, "53.0"), (1234.5, "1,234")]
)
def test_numbers_have_digits_that_mean_something(value: float, text: str) -> None:
    assert milliseconds(value) == text


def test_a_report_of_timings_alone(tmp_path: Path) -> None:
    files = write_machines(tmp_path / "machines")
    written = write_report(files, tmp_path / "report")
    names = {path.relative_to(tmp_path / "report").as_posix() for path in written}
    assert {"report.md", "report.tex", "timing.csv", "tables/timing-paper-latency.tex"} <= names
    assert sum(name.startswith("figures/timing-latency") and name.endswith(".png") for name in names) == 5
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "What the rows are" not in markdown
    assert "Machines that were timed" in markdown
    assert r"Processor \& Co" in (tmp_path / "report" / "report.tex").read_text()
    assert (tmp_path / "report" / "timing.csv").read_text().count("\n") == 1 + len(GPUS) * len(METHODS) * 2
    assert check_report([tmp_path / "machines"], tmp_path / "report") == []
