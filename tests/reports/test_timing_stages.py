"""What a report says of the parts of a pass."""

from timing_factory import change, make_timing

from reports.content.timing_stages import stage_plots, stage_table
from reports.content.timings import TimingSelection
from reports.rendering.figures.draw import draw
from results.timing_record import Stage, Stages, TimingRecord
from results.timing_rows import make_rows


def staged(process: int, tail: float | None, method: str = "efficientad_s", **parts: float) -> TimingRecord:
    stages = Stages(
        passes=1000, parts=[Stage(name=name.replace("_", " "), p50=value, p99=tail) for name, value in parts.items()]
    )
    return change(make_timing(method, process=process), stages=stages)


def timed(*records: TimingRecord) -> TimingSelection:
    made = make_rows(records)
    return TimingSelection(made.rows, made.invalid, made.left_out)


def test_a_part_is_the_mean_of_the_processes_medians_and_its_share_of_their_sum() -> None:
    timings = timed(*(staged(number, 4.0 + number, teacher=3.0, post=1.0) for number in range(3)))
    table = stage_table(timings, timings.devices[0])
    assert table is not None
    texts = [[field.text for field in row[3:]] for row in table.rows]
    assert texts == [["teacher", "3.00 [3.00, 3.00]", "6.00", "75 %"], ["post", "1.00 [1.00, 1.00]", "6.00", "25 %"]]


def test_a_tail_is_that_of_all_processes_or_none() -> None:
    timings = timed(staged(0, 4.0, teacher=3.0), staged(1, None, teacher=3.0))
    table = stage_table(timings, timings.devices[0])
    assert table is not None
    assert table.rows[0][5].text == "–"


def test_without_stages_there_is_nothing() -> None:
    timings = timed(make_timing())
    assert stage_table(timings, timings.devices[0]) is None
    assert stage_plots(timings, timings.devices[0]) == {}


def test_bars_are_filled_to_their_end_the_shortest_pass_first() -> None:
    timings = timed(
        staged(0, None, "patchcore", transfer_to_device=1.0, backbone=20.0, search=10.0, post=1.0),
        staged(0, None, "efficientad_s", transfer_to_device=0.1, teacher=1.0, student=1.0, post=0.1),
    )
    (plot,) = stage_plots(timings, timings.devices[0]).values()
    assert [bar.label for bar in plot.bars] == ["EfficientAD-S", "PatchCore"]
    assert plot.names == ("teacher", "student", "backbone", "search", "transfer to device", "post")
    (axes,) = draw(plot).axes
    ends = {round(patch.get_y() + 0.35): patch.get_x() + patch.get_width() for patch in axes.patches}
    assert {place: round(end, 6) for place, end in ends.items()} == {0: 100.0, 1: 100.0}
    assert [text.get_text() for text in axes.texts] == ["2.20 ms", "32.0 ms"]
