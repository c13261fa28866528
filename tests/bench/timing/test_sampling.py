"""When the warm-up ends and when there are enough samples, by injected clocks."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from bench.errors import UsageError
from bench.timing import sampling
from bench.timing.clocks import HostClock
from bench.timing.measuring import Measurement, measure, time_after_idle
from bench.timing.protocols import PROTOCOLS, describe_region, timing_protocol
from bench.timing.sampling import SamplingRules
from results.timing_record import AfterIdle


def run(name: str, pass_ms: Callable[[int], float], time_budget: float | None = None) -> Measurement:
    """Measure passes that take what they are told to."""
    time_ns, number = [0], itertools.count()

    def one() -> None:
        time_ns[0] += round(1e6 * pass_ms(next(number)))

    clock = HostClock(lambda: time_ns[0], lambda: 2 * time_ns[0])
    rules = SamplingRules(timing_protocol(name), time_budget)
    return measure(one, clock, rules, lambda: time_ns[0] / 1e9)


@pytest.mark.parametrize("name", ["paper", "mvtec_ad2"])
def test_the_paper_takes_1000_passes_after_1000(name: str) -> None:
    measured = run(name, lambda number: 5.0 if number < 1000 else 2.0)
    assert (measured.warm_up, len(measured.readings), measured.stop_reason) == (1000, 1000, "count")
    assert measured.warm_up_seconds == pytest.approx(5)
    assert measured.seconds == pytest.approx(2)
    samples = measured.samples()
    assert set(samples.wall_ms) == {2.0}
    assert set(samples.cpu_ms) == {4.0}
    assert samples.event_ms is None


def test_a_time_budget_ends_both_and_a_third_of_it_is_warm_up() -> None:
    measured = run("paper", lambda _: 100.0, time_budget=9.0)
    assert measured.stop_reason == "time budget"
    assert measured.warm_up_seconds == pytest.approx(3, abs=0.1)
    assert measured.seconds == pytest.approx(6, abs=0.1)


def test_a_budget_of_less_than_a_pass_leaves_three_samples() -> None:
    measured = run("paper", lambda _: 5000.0, time_budget=1.0)
    assert (measured.warm_up, len(measured.readings)) == (1, 3)


def test_an_adaptive_warm_up_waits_for_time_and_for_medians_that_stand_still() -> None:
    quick = run("rigorous", lambda _: 0.5)
    assert quick.warm_up_seconds >= 2
    # Clocks rise until pass 3000.
    rising = run("rigorous", lambda number: 4.0 - number / 1500 if number < 3000 else 2.0)
    assert 3000 <= rising.warm_up < 4500


def test_an_adaptive_protocol_stops_when_it_knows_or_when_it_will_not() -> None:
    still = run("rigorous", lambda _: 3.0)
    assert (len(still.readings), still.stop_reason) == (1000, "precise")
    noise = np.random.default_rng(0).lognormal(0, 1.5, 200_000)
    wild = run("rigorous", lambda number: float(3 * noise[number]))
    assert wild.stop_reason == "noise"
    assert wild.seconds == pytest.approx(60, abs=1)


def test_a_median_that_is_known_is_not_enough_while_the_tail_is_not() -> None:
    generator = np.random.default_rng(0)
    tail = np.where(generator.random(20_000) < 0.012, generator.uniform(1, 6, 20_000), 1.0)
    rules = SamplingRules(timing_protocol("rigorous"))
    assert rules.stops([1.0] * 1000, 1.0) == "precise"
    assert rules.stops(tail[:1000].tolist(), 1.0) is None


def test_precision_is_looked_at_with_each_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def half_widths(milliseconds: np.ndarray, shares: list[float]) -> list[float]:
        looked.append(len(milliseconds))
        return [0.1] * len(shares)

    monkeypatch.setattr(sampling, "half_widths", half_widths)
    measured = run("rigorous", lambda _: 3.0)
    assert len(measured.readings) == 20_000
    assert looked == [1000, 2000, 4000, 8000, 16000]


def test_protocols_are_those_of_their_sources() -> None:
    images = {
        name: (one.batches, one.precision, one.input_dtype, one.region, one.pinned, one.non_blocking)
        for name, one in PROTOCOLS.items()
    }
    assert images == {
        "paper": ((1, 16), "fp16", "float16", "host to device", False, False),
        "rigorous": ((1, 16), "fp16", "uint8", "host to device", True, True),
        "mvtec_ad2": ((1,), "fp32", "float32", "host to host", False, False),
    }
    assert [name for name, one in PROTOCOLS.items() if one.adaptive] == ["rigorous"]
    assert all(protocol.processes == 5 for protocol in PROTOCOLS.values())


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_cpu_runs_float32_and_transfers_nothing(name: str) -> None:
    here = timing_protocol(name).on("cpu")
    assert (here.precision, here.pinned, here.non_blocking, here.batches) == ("fp32", False, False, (1,))
    assert here.input_dtype != "float16"
    assert timing_protocol(name).on("cuda:0") is timing_protocol(name)


def test_a_pass_after_a_rest_is_timed_without_the_rest() -> None:
    time_ns = [0]

    def rest(seconds: float) -> None:
        time_ns[0] += round(1e9 * seconds)

    def run() -> None:
        time_ns[0] += 7_000_000

    clock = HostClock(lambda: time_ns[0], lambda: time_ns[0])
    assert time_after_idle(run, clock, 30.0, rest) == AfterIdle(seconds=30.0, milliseconds=[7.0] * 5)
    assert time_ns[0] == 5 * 30_007_000_000


def test_a_mode_changes_what_it_is_about() -> None:
    rigorous = timing_protocol("rigorous")
    assert rigorous.in_mode("request", "cuda:0") == rigorous
    stream = rigorous.in_mode("stream", "cuda:0")
    assert (stream.pinned, stream.non_blocking, stream.adaptive, stream.region) == (True, True, False, "host to device")
    alone = timing_protocol("paper").in_mode("device", "cuda:0")
    assert (alone.region, alone.pinned, alone.non_blocking) == ("on device", False, False)
    here = timing_protocol("paper").on("cpu").in_mode("stream", "cpu")
    assert (here.pinned, here.non_blocking, here.precision) == (False, False, "fp32")
    assert "replay" in describe_region("on device", "cuda:0", "device")
    assert "2 passes under way" in describe_region("host to device", "cuda:0", "stream")
    assert "back to back" in describe_region("host to device", "cpu", "stream")


def test_an_unknown_protocol_is_named_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match="unknown timing protocol 'papr'; did you mean 'paper'"):
        timing_protocol("papr")
