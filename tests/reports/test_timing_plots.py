"""What plots of timings show: growth with batch, image and bank, and accuracy against time."""

from typing import Any

import pytest
from record_factory import DEMO, DEMO_NOTE, LOCO, make_record
from timing_factory import change, distribution, make_timing

from reports.content.selection import Selection, select
from reports.content.timing_curves import batch_tables, curve_plots, grows_until
from reports.content.timings import TimingSelection, row_names
from reports.content.trade_off import front, trade_off_plots
from reports.rendering.figures.draw import draw
from reports.rendering.figures.style import encode, symbols
from results.timing_record import Reason, TimingRecord
from results.timing_rows import Estimate, make_rows

DRIFT = Reason(check="V5", status="SUSPECT", text="drift")


def timed(*records: TimingRecord) -> TimingSelection:
    made = make_rows(records)
    return TimingSelection(made.rows, made.invalid, made.left_out)


def three(**facts: Any) -> list[TimingRecord]:
    return [make_timing(process=process, **facts) for process in range(3)]


def measured(*methods: str, collection: Any = LOCO, **changes: Any) -> Selection:
    """Accuracies of detectors with the options of the timings that the factory makes."""
    facts = {"config": {}, "weights": [], "deviations": [], **changes}
    return select((make_record(method, collection, seed=seed, **facts), None) for method in methods for seed in (0, 1))


def points(values: list[float]) -> list[tuple[float, Estimate]]:
    return [(2**index, Estimate(value)) for index, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "limit"),
    [([1, 2, 2.05, 2.08], 2), ([1, 2, 4], None), ([3, 2, 1], 1), ([1, 0.9, 1.2, 1.0], 4), ([1], None)],
)
def test_a_throughput_no_longer_grows_once_nothing_larger_is_faster(values: list[float], limit: float | None) -> None:
    assert grows_until(points(values)) == limit


def test_throughput_by_batch_size_has_a_ring_where_it_ends_to_grow() -> None:
    rates = {1: 400.0, 4: 600.0, 16: 700.0, 32: 702.0}
    records = [change(record, throughput=rate) for batch, rate in rates.items() for record in three(batch=batch)]
    timings = timed(*records)
    (device,) = timings.devices
    (plot,) = curve_plots(timings, device).values()
    (curve,) = plot.curves
    assert {place: estimate.value for place, estimate in curve.points} == pytest.approx(rates)
    assert curve.marked == 16
    rings = [line for line in draw(plot).axes[0].lines if line.get_markersize() == 9]
    assert [line.get_xdata()[0] for line in rings] == [16]
    (table,) = batch_tables(timings, device).values()
    assert [field.text for field in table.rows[0]][2:] == [
        "400 ± 0.0",
        "600 ± 0.0",
        "700 ± 0.0",
        "702 ± 0.0",
        "16",
    ]


def test_the_two_batch_sizes_of_every_protocol_make_no_curve() -> None:
    timings = timed(make_timing(), make_timing(batch=16))
    assert curve_plots(timings, timings.devices[0]) == {}
    assert batch_tables(timings, timings.devices[0]) == {}


def test_latency_by_image_size_is_of_one_detector_but_for_its_size() -> None:
    sizes = [(224, 224), (448, 448), (256, 1024)]
    records = [
        change(make_timing("patchcore", input_size=size), subject={"config": {"image_size": list(size), "k": 1}})
        for size in sizes
    ]
    other = change(make_timing("patchcore", input_size=(512, 512)), subject={"config": {"k": 2}})
    (plot,) = [
        plot
        for stem, plot in curve_plots(timed(*records, other), timed(other).devices[0]).items()
        if stem.startswith("size")
    ]
    (curve,) = plot.curves
    assert [place for place, _ in curve.points] == [224, 448, 512]
    assert curve.label == "PatchCore"


def test_latency_by_memory_bank_is_of_one_image_size() -> None:
    banks = [change(make_timing("patchcore"), subject={"memory_bank": bank}) for bank in (10**5, 10**6)]
    large = change(make_timing("patchcore", input_size=(448, 448)), subject={"memory_bank": 10**7})
    plots = curve_plots(timed(*banks, large, make_timing()), timed(large).devices[0])
    (curve,) = plots["bank-paper-request"].curves
    assert [place for place, _ in curve.points] == [10**5, 10**6]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([(1, 1), (2, 2), (0, 3)], [False, True, True]),
        ([(1, 1), (1, 1)], [True, True]),
        ([(1, 1), (1, 2)], [False, True]),
        ([], []),
    ],
)
def test_the_front_is_what_nothing_beats(values: list[tuple[float, float]], expected: list[bool]) -> None:
    assert front(values) == expected


def test_accuracy_stands_against_latency_and_throughput_of_the_same_detector() -> None:
    methods = ("efficientad_s", "ast", "patchcore")
    timings = timed(
        *(record for method in methods for batch in (1, 16) for record in three(method=method, batch=batch))
    )
    # The factory's timed PatchCore has other options.
    selection = measured("efficientad_s", "ast")
    other = measured("patchcore", config={"k": 3})
    both = Selection((*selection.results, *other.results), ())
    (plot,) = trade_off_plots(both, timings, timings.devices[0]).values()
    assert plot.labels == ("AST", "EfficientAD-S")
    assert [(panel.metric, panel.speed) for panel in plot.panels] == [
        ("image_au_roc", "latency"),
        ("image_au_roc", "throughput"),
        ("au_spro@0.05", "latency"),
        ("au_spro@0.05", "throughput"),
    ]
    by_label = {point.label: point for point in plot.panels[0].points}
    assert by_label["AST"].speed.value == pytest.approx(53 * 1.004)
    assert not by_label["AST"].front, "slower and less accurate"
    assert by_label["EfficientAD-S"].front
    assert by_label["AST"].accuracy.deviation
    rates = {point.label: point.speed.value for point in plot.panels[1].points}
    assert rates["EfficientAD-S"] > rates["AST"]
    assert any("different precisions: fp32 and fp16" in note for note in plot.notes)
    assert encode(draw(plot), "png").startswith(b"\x89PNG")


def test_both_error_bars_are_drawn_and_suspect_times_are_half_filled() -> None:
    timings = timed(*three(), *three(method="ast", reasons=(DRIFT,)))
    (plot,) = trade_off_plots(measured("efficientad_s", "ast"), timings, timings.devices[0]).values()
    axes = draw(plot).axes[0]
    bars = [line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2]
    across = [line for line in bars if line.get_ydata()[0] == line.get_ydata()[1]]
    upwards = [line for line in bars if line.get_xdata()[0] == line.get_xdata()[1]]
    assert (len(across), len(upwards)) == (2, 2)
    assert sorted(line.get_fillstyle() for line in axes.lines if line.get_marker() != "None") == ["full", "left"]
    assert any("SUSPECT" in note for note in plot.notes)


def test_a_collection_that_ranks_nothing_has_no_front() -> None:
    timings = timed(make_timing(), make_timing("ast"))
    (plot,) = trade_off_plots(measured("efficientad_s", "ast", collection=DEMO), timings, timings.devices[0]).values()
    assert not any(point.front for panel in plot.panels for point in panel.points)
    assert DEMO_NOTE in plot.notes


def test_weights_that_differ_are_another_detector() -> None:
    record = make_record("efficientad_s", config={})
    assert record.weights, "the record has some, the timing none"
    timings = timed(make_timing(), make_timing("ast"))
    selection = measured("efficientad_s", "ast", weights=[weight.model_dump() for weight in record.weights])
    assert trade_off_plots(selection, timings, timings.devices[0]) == {}


def test_names_in_plots_say_only_what_differs() -> None:
    rows = make_rows([make_timing(), make_timing("ast", input_size=(768, 768))]).rows
    assert sorted(row_names(rows).values()) == ["AST", "EfficientAD-S"]
    rows = make_rows([make_timing(), make_timing(precision="bf16"), make_timing("ast", precision="fp16")]).rows
    assert sorted(row_names(rows).values()) == ["AST (fp16)", "EfficientAD-S (bf16)", "EfficientAD-S (fp16)"]
    trained = change(make_timing(), subject={"deviations": ["7 of 70000 steps"], "config": {"steps": 7}})
    rows = make_rows([make_timing(), trained]).rows
    assert sorted(row_names(rows).values()) == ["EfficientAD-S (7 of 70000 steps)", "EfficientAD-S (as in the paper)"]


def test_no_two_of_many_things_look_alike() -> None:
    style = symbols([str(index) for index in range(126)])
    assert len({(str(look["color"]), look["marker"]) for look in style.values()}) == 126
    assert len({look["marker"] for look in list(style.values())[:14]}) == 14, "told apart in black and white, too"
    assert all(len({round(part, 2) for part in look["color"]}) > 1 for look in style.values()), "gray is the frame's"


def test_passes_of_almost_one_length_can_be_drawn() -> None:
    flat = [change(make_timing(batch=batch), throughput=500.0) for batch in (1, 2, 4)]
    (plot,) = curve_plots(timed(*flat), timed(*flat).devices[0]).values()
    assert encode(draw(plot), "pdf").startswith(b"%PDF")
    tiny = change(make_timing(), event=distribution(1e-3).model_dump())
    assert encode(draw(_latency_plot(tiny)), "png").startswith(b"\x89PNG")


def _latency_plot(record: TimingRecord) -> Any:
    from reports.content.latency_plot import latency_plots

    (plot,) = latency_plots(timed(record)).values()
    return plot
