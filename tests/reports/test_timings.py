"""What a report says of timings."""

from pathlib import Path
from typing import Any

import pytest
from timing_factory import GPUS, METHODS, change, distribution, make_timing, write_machines

from reports.content.document import timing_sections
from reports.content.latency_plot import latency_plots
from reports.content.prices import Price, parse_prices, price_of
from reports.content.tables import OTHER, Table
from reports.content.timings import estimate_text, milliseconds, select_timings
from reports.errors import ReportError
from reports.rendering.figures.draw import draw
from reports.report import check_report, make_report, write_report
from results.parity import Parity
from results.timing_record import AfterIdle, Energy, Line, Reason, Stage, Stages, TimingRecord
from results.timing_rows import Estimate
from results.timing_store import append_timing

DRIFT = Reason(check="V5", status="SUSPECT", text="the last quarter of the passes took +3.0% of the first's time")
SHARED = Reason(check="V4", status="INVALID", text="2 other processes were on the GPU")


def tables_of(paths: list[Path], **options: Any) -> dict[str, Table]:
    """Every table of some timings, by the stem of its file."""
    sections = timing_sections(select_timings(paths, **options))
    return {stem.removeprefix("tables/"): table for section in sections for stem, table in section.tables.items()}


def texts(table: Table) -> list[list[str]]:
    return [[field.text for field in row] for row in table.rows]


def notes(table: Table) -> str:
    return "\n".join(note.text for note in table.notes)


def slower(record: TimingRecord, factor: float) -> TimingRecord:
    """The same record with passes that take so many times as long."""
    assert record.event is not None
    mean = record.event.mean * factor
    return change(
        record,
        event=distribution(mean).model_dump(),
        wall=distribution(1.01 * mean).model_dump(),
        throughput=record.throughput / factor,
    )


def three(**facts: Any) -> list[TimingRecord]:
    return [make_timing(process=process, **facts) for process in range(3)]


def write(folder: Path, *records: object) -> Path:
    for record in records:
        append_timing(folder / "some.jsonl", record)  # type: ignore[arg-type]
    return folder


def test_five_machines_make_the_papers_table(tmp_path: Path) -> None:
    tables = tables_of(write_machines(tmp_path))
    latency, throughput = tables["timing-paper-latency"], tables["timing-paper-throughput"]
    heads = [column.title for column in latency.columns]
    assert heads[:2] == ["Method", "Setting"]
    assert sorted(head.partition(",")[0] for head in heads[2:]) == sorted(GPUS)
    assert len(heads) == 7
    assert [row[0] for row in texts(latency)] == sorted(title for title, *_ in METHODS.values())
    # Three processes of 2.2, 2.2088 and 2.2176 ms.
    row = dict(zip(heads, next(row for row in texts(latency) if row[0] == "EfficientAD-S"), strict=True))
    assert row["NVIDIA RTX A6000, 300 W (1111)"] == "2.21 ± 0.009"
    rates = dict(zip(heads, next(row for row in texts(throughput) if row[0] == "EfficientAD-S"), strict=True))
    assert rates["NVIDIA RTX A6000, 300 W (1111)"].startswith("647 ± ")
    assert "timing-invalid" not in tables
    assert "images in host memory to maps and scores on the device, by cuda-events" in notes(latency)


def test_two_machines_with_the_same_gpu_stay_two_columns(tmp_path: Path) -> None:
    folder = write(tmp_path, make_timing(number=1), change(make_timing(number=2), throughput=1.0))
    (row,) = texts(tables_of([folder])["timing-paper-latency"])
    assert row[2:] == ["2.20", "2.20"]


def test_machines_with_the_same_gpu_are_joined_on_request(tmp_path: Path) -> None:
    machines = [make_timing(number=1), slower(make_timing(number=2), 1.5), slower(make_timing(number=3), 3)]
    folder = write(tmp_path, *machines, make_timing(gpu="Tesla V100", number=4))
    table = tables_of([folder], collapse=True)["timing-paper-latency"]
    assert [column.title for column in table.columns[2:]] == [
        "NVIDIA RTX A6000, 300 W (3 machines)",
        "Tesla V100, 300 W (4444)",
    ]
    (row,) = texts(table)
    assert row[2:] == ["3.30 [2.20, 6.60]", "3.52"]
    assert "median [least, greatest]" in notes(table)


def test_a_machine_that_lacks_a_method_has_a_dash_there(tmp_path: Path) -> None:
    other = make_timing("ast", "Tesla V100", number=2)
    table = tables_of([write(tmp_path, make_timing(), other)])["timing-paper-latency"]
    by_method = {row[0]: row[2:] for row in texts(table)}
    assert by_method == {"AST": ["–", "84.8"], "EfficientAD-S": ["2.20", "–"]}


def test_processors_never_stand_beside_gpus(tmp_path: Path) -> None:
    records = [make_timing(gpu=None, process=process, number=9) for process in range(3)]
    tables = tables_of([write(tmp_path, make_timing(), *records)])
    (row,) = texts(tables["timing-2-processor"])
    assert row[:3] == ["EfficientAD-S", "eager, fp32, 256×256", "1"]
    assert row[-2:] == ["3 × 1,000", "VALID"]
    assert tables["timing-2-processor"].title == "Some Processor, 8 threads (9999), protocol paper"
    assert "Some Processor" not in str(tables["timing-paper-latency"].columns)


def test_faster_ways_stand_beside_how_exact_they_are(tmp_path: Path) -> None:
    exactness = Parity(
        images=40,
        map_error=2.5e-3,
        score_error=1e-3,
        threshold=0.5,
        flipped=["test/a/1"],
        metrics={"image_au_roc": (0.964, 0.9639), "au_pro@0.3": (0.9, 0.92)},
    )
    plain = three(gpu=None)
    fast = [
        record.model_copy(update={"exactness": exactness, "wall": distribution(0.25 * record.wall.mean)})
        for record in three(gpu=None, backend="openvino", precision="bf16")
    ]
    table = tables_of([write(tmp_path, *plain, *fast)])["timing-1-exactness"]
    (row,) = texts(table)
    assert row == [
        *("EfficientAD-S", "openvino, bf16, 256×256", "1"),
        *("0.25 [0.25, 0.25]", "2.5e-03", "1.0e-03", "1 of 40", "96.4 → 96.4", "90.0 → 92.0"),
    ]
    assert [column.title for column in table.columns[-2:]] == ["Image AU-ROC", "AU-PRO@0.3"]
    assert "timing-1-exactness" not in tables_of([write(tmp_path / "plain", *plain)])


def test_a_fused_row_is_called_so(tmp_path: Path) -> None:
    table = tables_of([write(tmp_path, make_timing(), make_timing(fused=True))])["timing-paper-latency"]
    assert [row[1] for row in texts(table)] == ["eager fused, fp16, 256×256", "eager, fp16, 256×256"]


def test_suspect_rows_are_marked_and_invalid_ones_stand_apart(tmp_path: Path) -> None:
    suspect = [make_timing(process=process, reasons=(DRIFT,)) for process in range(3)]
    invalid = [make_timing("ast", process=process, reasons=(SHARED,)) for process in range(3)]
    tables = tables_of([write(tmp_path, *suspect, *invalid)])
    latency = tables["timing-paper-latency"]
    assert [row[0] for row in texts(latency)] == ["EfficientAD-S"]
    assert latency.rows[0][2].marks
    assert "SUSPECT: the last quarter of the passes took +3.0%" in notes(latency)
    (row,) = texts(tables["timing-invalid"])
    assert row[0] == "AST"
    assert "2 other processes were on the GPU (in 3 of 3 processes) (V4)" in row[3]


def test_costs_are_those_of_the_papers_table_with_the_bank_apart(tmp_path: Path) -> None:
    records = [make_timing("efficientad_s"), make_timing("patchcore"), make_timing("efficientad_m", reasons=(SHARED,))]
    miscounted = make_timing("ast", reasons=(Reason(check="V10", status="INVALID", text="no operation was counted"),))
    tables = tables_of([write(tmp_path, *records, miscounted)])
    assert texts(tables["timing-costs"]) == [
        ["EfficientAD-M", "256×256", "20.738", "235.411"],
        ["EfficientAD-S", "256×256", "8.058", "75.895"],
        ["PatchCore", "256×256", "82.870 + 3.200", "41.200 + 5.000"],
    ]
    assert texts(tables["timing-1-efficiency-paper"])[0][2:] == ["2.20", "–", "8.058", "75.895", "100"]
    published = {row[0]: row[1:] for row in texts(tables["timing-costs-published"])}
    assert published["PatchCore"] == ["32", "76", "83 + 3", "41 + kNN", "637 + kNN"]
    assert texts(tables["timing-latency-published"])[0][0] == "EfficientAD-S"


def test_a_line_says_what_is_shown_and_what_is_not(tmp_path: Path) -> None:
    line = Line(
        rate=40, arrivals="fixed", deadline_ms=20, triggers=1000, missed=2, miss_bound=0.0063,
        response=make_timing().wall, greatest_backlog=3, sustainable_rate=None, sustainable_at=1e-4,
    )  # fmt: skip
    records = [make_timing(process=process, line=line) for process in range(3)]
    tables = tables_of([write(tmp_path, *records)])
    (row,) = texts(tables["timing-line-gpu"])
    assert row[2:] == ["40", "20", "6 of 3,000", "0.63 %", "3", "not shown", "VALID"]
    assert "timing-paper-latency" not in tables, "passes of a line are no latency"


def test_no_table_has_rows_of_gpus_and_processors(tmp_path: Path) -> None:
    line = Line(
        rate=40,
        arrivals="fixed",
        deadline_ms=20,
        triggers=30_000,
        missed=0,
        miss_bound=1e-4,
        response=make_timing().wall,
        greatest_backlog=1,
        sustainable_rate=44.0,
        sustainable_at=1e-4,
    )
    records = [make_timing(gpu=gpu, line=own) for gpu in ("Tesla V100", None) for own in (line, None)]
    tables = tables_of([write(tmp_path, *records)], prices=parse_prices("1/h"))
    for table in tables.values():
        words = str(table)
        assert not ("Tesla V100, 300 W" in words and "Some Processor" in words), table.title
    assert len(tables["timing-line-cpu"].rows) == len(tables["timing-prices-cpu"].rows) == 1


def test_published_latencies_are_hollow_and_of_the_same_gpu(tmp_path: Path) -> None:
    plots = latency_plots(select_timings(write_machines(tmp_path, batches=(1,))))
    (plot,) = plots.values()
    assert plot.labels == ("EfficientAD-S", "EfficientAD-M", "PatchCore", "AST"), "fastest first"
    assert [line.published for line in plot.lines] == [False] * 5 + [True] * 5
    by_device = {line.device: line for line in plot.lines}
    v100 = {point.label: point.latency.value for point in by_device["Tesla V100"].points}
    assert v100 == {"EfficientAD-S": 3.9, "EfficientAD-M": 6.3, "PatchCore": 47.1, "AST": 75.6}
    markers = [line for line in draw(plot).axes[0].lines if line.get_marker() != "None"]
    hollow = {line.get_ydata()[0] for line in markers if line.get_markerfacecolor() == "none"}
    assert hollow == {5, 6, 7, 8, 9}, "those below the line, and no other"


def test_a_single_device_has_a_row_per_method(tmp_path: Path) -> None:
    records = [*three(method="patchcore", gpu=None, reasons=(DRIFT,)), *three(gpu=None)]
    (plot,) = latency_plots(select_timings([write(tmp_path, *records)])).values()
    axes = draw(plot).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["EfficientAD-S", "PatchCore"], "fastest first"
    fills = {line.get_ydata()[0]: line.get_fillstyle() for line in axes.lines if line.get_marker() != "None"}
    assert fills == {0: "full", 1: "left"}, "the suspect one is half filled"


def test_published_latencies_of_gpus_stand_beside_no_processor(tmp_path: Path) -> None:
    (plot,) = latency_plots(select_timings([write(tmp_path, make_timing(gpu=None))])).values()
    assert [line.published for line in plot.lines] == [False]


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
    assert {"figures/timing-latency-gpu-paper.png", "figures/timing-latency-gpu-paper.pdf"} <= names
    assert not names & {"metrics.csv", "means.csv", "cells.csv"}, "no results, no table of them"
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "What the rows are" not in markdown
    assert "Machines that were timed" in markdown
    assert r"Processor \& Co" in (tmp_path / "report" / "report.tex").read_text()
    assert (tmp_path / "report" / "timing.csv").read_text().count("\n") == 1 + len(GPUS) * len(METHODS) * 2
    assert check_report([tmp_path / "machines"], tmp_path / "report") == []


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(2.204), "2.20"),
        (Estimate(2.204, 2.195, 2.213, 0.009), "2.20 ± 0.009"),
        (Estimate(53.04, 52.5, 53.6), "53.0 [52.5, 53.6]"),
        (Estimate(0.292, 0.290, 0.294), "0.292 [0.290, 0.294]"),
        (Estimate(449.2, 449.2, 449.2), "449 [449, 449]"),
    ],
)
def test_the_ends_of_an_interval_differ_as_far_as_they_do(estimate: Estimate, text: str) -> None:
    assert estimate_text(estimate) == text


def test_rows_that_look_alike_say_what_tells_them_apart(tmp_path: Path) -> None:
    rows = [make_timing(), make_timing(cache="cold"), make_timing("patchcore")]
    bank = change(make_timing("patchcore"), subject={"memory_bank": 10**7})
    settings = [row[:2] for row in texts(tables_of([write(tmp_path, *rows, bank)])["timing-paper-latency"])]
    assert settings == [
        ["EfficientAD-S", "eager, fp16, 256×256"],
        ["EfficientAD-S", "eager, fp16, 256×256, cold cache"],
        ["PatchCore", "eager, fp16, 256×256, bank of 10 M values"],
        ["PatchCore", "eager, fp16, 256×256, bank of 3.2 M values"],
    ]


def test_modes_and_protocols_never_share_a_table(tmp_path: Path) -> None:
    records = [make_timing(), make_timing(mode="device"), make_timing(mode="stream"), make_timing(protocol="rigorous")]
    tables = tables_of([write(tmp_path, *records)])
    latencies = {stem: len(table.rows) for stem, table in tables.items() if stem.endswith("-latency")}
    assert latencies == {"timing-paper-latency": 1, "timing-paper-device-latency": 1, "timing-rigorous-latency": 1}


def test_host_and_device_stand_side_by_side_where_both_were_timed(tmp_path: Path) -> None:
    stages = Stages(passes=1000, parts=[Stage(name="transfer to device", p50=0.2, p99=None)])
    requests = [
        change(make_timing(method), stages=stages if method == "efficientad_s" else None, enqueue=distribution(enqueue))
        for method, enqueue in (("efficientad_s", 0.9), ("efficientad_m", 0.7), ("ast", 5.0))
    ]
    alone = [
        change(make_timing(method, mode="device"), event=distribution(1.0).model_dump())
        for method in ("efficientad_s", "efficientad_m")
    ]
    table = tables_of([write(tmp_path, *requests, *alone)])["timing-1-host"]
    assert [line[3:] for line in texts(table)] == [
        ["4.54", "1.00", "–", "–", "0.70", "no"],
        ["2.22", "1.00", "0.20", "1.02", "0.90", "yes"],
    ]
    assert "timing-1-host" not in tables_of([write(tmp_path / "cpu", make_timing(gpu=None))])


def test_a_cold_start_says_what_precedes_a_pass_and_what_a_rest_costs(tmp_path: Path) -> None:
    records = [
        change(record, sampling={"compile_ms": 1200.0}, after_idle=AfterIdle(seconds=30, milliseconds=[4.0, last]))
        for record, last in zip(three(), (6.0, 5.0, 9.0), strict=True)
    ]
    (line,) = texts(tables_of([write(tmp_path, *records)])["timing-1-start"])
    assert line == [
        *("EfficientAD-S", "paper, request, eager, fp16, 256×256", "1"),
        *("300", "1,200", "900", "30 s: 4.50 (9.00)", "2.23"),
    ]
    (line,) = texts(tables_of([write(tmp_path / "other", *three())])["timing-1-start"])
    assert [line[4], line[6]] == ["–", "–"]


def test_what_other_code_has_timed_has_a_dagger(tmp_path: Path) -> None:
    other = change(make_timing("patchcore"), machine={"git_commit": "fedcba987654"})
    table = tables_of([write(tmp_path, make_timing(), make_timing("ast"), other)])["timing-paper-latency"]
    assert [OTHER in row[2].marks for row in table.rows] == [False, False, True]
    assert "fedcba9 instead of 0123456" in notes(table)


def test_bold_is_the_fastest_and_what_is_not_shown_to_be_slower(tmp_path: Path) -> None:
    noisy = [slower(record, factor) for record, factor in zip(three(cache="cold"), (0.99, 1.05, 1.0), strict=True)]
    doubtful = [slower(record, 0.5) for record in three(backend="cudagraph", reasons=(DRIFT,))]
    folder = write(tmp_path, *three(), *noisy, *three(method="efficientad_m"), *doubtful)
    table = tables_of([folder])["timing-paper-latency"]
    bold = [(row[0].text, row[1].text) for row in table.rows if row[2].best]
    assert bold == [
        ("EfficientAD-S", "eager, fp16, 256×256"),
        ("EfficientAD-S", "eager, fp16, 256×256, cold cache"),
    ]


def test_devices_are_compared_by_how_they_rank(tmp_path: Path) -> None:
    here = [make_timing(method) for method in METHODS]
    there = [make_timing(method, "Tesla V100", number=2) for method in METHODS]
    there[0] = slower(there[0], 3)
    (row,) = texts(tables_of([write(tmp_path, *here, *there)])["timing-ranking"])
    # One of six pairs is swapped.
    assert row[3:] == ["4", "0.67", "EfficientAD-M and EfficientAD-S"]


def test_rows_of_one_device_are_compared_with_the_fastest(tmp_path: Path) -> None:
    tables = tables_of([write(tmp_path, *three(), *three(method="efficientad_m"))])
    first, second = texts(tables["timing-1-compared-paper-request"])
    assert first[2:] == ["1", "the least"]
    assert second == ["EfficientAD-M", "eager, fp16, 256×256", "2.05 [2.05, 2.05]", "slower"]


def test_a_million_images_cost_what_the_user_says_an_hour_does(tmp_path: Path) -> None:
    records = [change(make_timing(batch=batch), throughput=rate) for batch, rate in ((1, 400.0), (16, 500.0))]
    alone = change(make_timing(mode="device"), throughput=9000.0)  # a line has to transfer its images
    folder = write(tmp_path, *records, alone, make_timing(gpu="Tesla V100", number=2))
    assert not any("prices" in stem for stem in tables_of([folder]))
    tables = tables_of([folder], prices=parse_prices("A6000=1.8 EUR/h"))
    (line,) = texts(tables["timing-prices-gpu"])
    assert line[3:] == ["16", "500", "1.8 EUR", "1.00", "–", "–"]


def test_energy_of_a_million_images_stands_beside_their_cost(tmp_path: Path) -> None:
    records = [change(record, energy=Energy(mj_per_image=360.0)) for record in three()]
    folder = write(tmp_path, *records, make_timing(gpu="Tesla V100", number=2))
    table = tables_of([folder])["timing-prices-gpu"]
    (line,) = texts(table)
    assert line[5:] == ["–", "–", "360 [360, 360]", "0.10"]  # 0.36 J * 10^6 = 0.1 kWh
    assert "board only" in notes(table)
    priced = texts(tables_of([folder], prices=parse_prices("1.8/h"))["timing-prices-gpu"])
    assert [line[7] for line in priced] == ["360 [360, 360]", "–"]


def test_energy_that_one_process_lacks_is_not_told(tmp_path: Path) -> None:
    first, *others = three()
    records = [
        change(first, energy=Energy(unknown="no counter")),
        *(change(o, energy=Energy(mj_per_image=1)) for o in others),
    ]
    assert "timing-prices-gpu" not in tables_of([write(tmp_path, *records)])


@pytest.mark.parametrize("text", ["cheap", "1.2", "0/h", "-1/h", "1.2 EUR", "A6000=/h", "1 €/h"])
def test_a_price_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ReportError, match="--price does not take"):
        parse_prices(text)


def test_a_price_for_a_device_goes_before_one_for_all() -> None:
    prices = parse_prices("1.2/h, a6000=0.8 EUR/h")
    assert price_of("NVIDIA RTX A6000", prices) == Price("a6000", 0.8, "EUR")
    assert price_of("Tesla V100", prices) == Price("", 1.2, "")
    assert price_of("Tesla V100", prices[1:]) is None


def test_processors_on_several_machines_have_sections_of_their_own(tmp_path: Path) -> None:
    records = [make_timing(), make_timing(gpu=None, number=2), make_timing(gpu=None, number=3)]
    titles = [section.title for section in timing_sections(select_timings([write(tmp_path, *records)]))]
    assert titles == [
        "Timing",
        "Timing: NVIDIA RTX A6000, 300 W (1111)",
        "Timing: Some Processor, 8 threads (2222)",
        "Timing: Some Processor, 8 threads (3333)",
    ]


def test_machines_whose_ids_begin_alike_stay_apart(tmp_path: Path) -> None:
    records = [change(make_timing(), machine={"id": name}) for name in ("abcdef01", "abcdef02")]
    timings = select_timings([write(tmp_path, *records)])
    assert [timings.title(device) for device in timings.devices] == [
        "NVIDIA RTX A6000, 300 W (abcdef01)",
        "NVIDIA RTX A6000, 300 W (abcdef02)",
    ]


def test_latex_says_what_a_method_and_a_device_are_called(tmp_path: Path) -> None:
    odd = "50% of #1 & a_b^2 {x} ~ \\"
    record = change(make_timing(), subject={"title": odd, "deviations": [odd]})
    folder = write(tmp_path, record.model_copy(update={"machine": record.machine.model_copy(update={
        "gpu": record.machine.gpu.model_copy(update={"name": odd})})}))  # fmt: skip
    files = make_report([folder], {"tex"})
    for text in (files["report.tex"].decode(), files["tables/timing-paper-latency.tex"].decode()):
        assert "50\\%" in text
        assert odd not in text
