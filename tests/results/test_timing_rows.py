"""From the processes of a command to rows."""

import pytest
from timing_factory import make_timing

from results.timing_record import Reason
from results.timing_rows import compare_rows, make_rows, with_deviation, with_interval

BUSY = Reason(check="V4", status="INVALID", text="others took 50% of the CPUs' time")
DRIFT = Reason(check="V5", status="SUSPECT", text="drift")


def three(**facts: object) -> list:
    return [make_timing(process=process, **facts) for process in range(3)]


def test_processes_make_a_row_with_what_differs_between_them() -> None:
    (row,) = make_rows(three()).rows
    assert row.verdict.status == "VALID"
    assert row.latency.value == pytest.approx(2.2 * 1.004)
    assert row.latency.deviation == pytest.approx(2.2 * 0.004)
    assert row.bound("p99_bound") == pytest.approx(2.2 * 1.008 * 1.06)


def test_the_interval_is_students() -> None:
    estimate = with_interval([1.0, 2.0, 3.0])
    assert (estimate.low, estimate.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    assert with_interval([5.0]).low is None
    assert with_deviation([1.0, 3.0]).deviation == pytest.approx(2**0.5)


@pytest.mark.parametrize(
    "other",
    [
        {"batch": 16},
        {"gpu": "Tesla V100"},
        {"number": 2},
        {"method": "ast"},
        {"precision": "fp32"},
        {"backend": "cudagraph"},
        {"input_size": (512, 512)},
        {"protocol": "rigorous"},
        {"cache": "cold"},
    ],
    ids=str,
)
def test_what_differs_is_another_row(other: dict) -> None:
    assert len(make_rows([make_timing(), make_timing(**other)]).rows) == 2


def test_threads_tell_processors_apart_and_not_gpus() -> None:
    assert len(make_rows([make_timing(), make_timing(process=1, threads=4)]).rows) == 1
    assert len(make_rows([make_timing(gpu=None), make_timing(gpu=None, process=1, threads=4)]).rows) == 2


def test_fewer_than_three_processes_are_preliminary() -> None:
    (row,) = make_rows(three()[:2]).rows
    assert row.verdict.status == "SUSPECT"
    assert [reason.text for reason in row.verdict.reasons] == ["preliminary: 2 of at least 3 processes"]


def test_a_row_is_as_bad_as_its_worst_process() -> None:
    records = [*three()[:2], make_timing(process=2, reasons=(BUSY,))]
    rows = make_rows(records)
    assert rows.rows == ()
    (row,) = rows.invalid
    assert row.verdict.reasons[0].text.endswith("(in 1 of 3 processes)")


def test_the_newest_valid_timing_of_a_row_counts() -> None:
    old, new = three(session=0), three(session=1)
    found = make_rows([*new, *old])
    assert found.rows[0].records == tuple(new)
    assert found.left_out == ("Left out: older timings of rows that were timed again (1).",)
    # A timing that is no measurement does not displace one that is; it is listed.
    broken = three(session=2, reasons=(BUSY,))
    found = make_rows([*new, *broken])
    assert found.rows[0].records == tuple(new)
    assert [row.records for row in found.invalid] == [tuple(broken)]
    doubtful = three(session=2, reasons=(DRIFT,))
    assert make_rows([*new, *doubtful]).rows[0].records == tuple(new)


def test_latency_and_throughput_have_to_fit_together() -> None:
    batched = [record.model_copy(update={"throughput": 20_000.0}) for record in three(batch=16)]
    rows = {row.setting.batch: row for row in make_rows([*three(), *batched]).rows}
    for row in rows.values():
        assert row.verdict.status == "SUSPECT"
        assert [reason.check for reason in row.verdict.reasons] == ["V11"]
    fitting = make_rows([*three(), *three(batch=16)]).rows
    assert {row.verdict.status for row in fitting} == {"VALID"}


@pytest.mark.parametrize(
    ("factors", "word"),
    [
        ([0.5, 0.51, 0.49], "faster"),
        ([2.0, 2.1, 1.9], "slower"),
        ([1.001, 0.999, 1.0], "same"),
        ([0.7, 1.4, 1.0], "indistinguishable"),
    ],
)
def test_rows_are_compared_by_pairs_of_processes(factors: list[float], word: str) -> None:
    plain = three()
    changed = [
        record.model_copy(
            update={
                "event": record.event.model_copy(update={"p50": record.event.p50 * factor}),
                "setting": record.setting.model_copy(update={"backend": "cudagraph"}),
            }
        )
        for record, factor in zip(plain, factors, strict=True)
    ]
    rows = {row.setting.backend: row for row in make_rows([*plain, *changed]).rows}
    comparison = compare_rows(rows["cudagraph"], rows["eager"])
    assert comparison.word == word
    assert comparison.ratio == pytest.approx((factors[0] * factors[1] * factors[2]) ** (1 / 3))


def test_processes_of_two_machines_are_no_pairs_though_they_began_in_the_same_second() -> None:
    here, there = three(), [record.model_copy(update={"session": "session 0 of 1"}) for record in three(number=2)]
    (row, other) = make_rows([*here, *there]).rows
    assert row.records[0].session == other.records[0].session
    assert compare_rows(row, other).ratio is None


def test_rows_without_pairs_are_not_compared() -> None:
    (row,), (other,) = make_rows(three()).rows, make_rows(three(session=1)).rows
    assert compare_rows(row, other).word == "indistinguishable"
    assert compare_rows(row, other).ratio is None
