"""The production line against queues whose answers are known."""

import numpy as np
import pytest
from scipy import stats

from bench.timing.line import describe_line, miss_bound, replay, serve, sustainable_rate, trigger_times


def one_by_one(triggers: np.ndarray, service: np.ndarray) -> np.ndarray:
    ends, free = [], 0.0
    for trigger, takes in zip(triggers, service, strict=True):
        free = max(free, trigger) + takes
        ends.append(free - trigger)
    return np.array(ends)


def test_the_queue_is_the_loop_that_it_stands_for() -> None:
    generator = np.random.default_rng(0)
    triggers = np.sort(generator.uniform(0, 1000, 300))
    service = generator.exponential(3, 300)
    assert np.allclose(serve(triggers, service).response_ms, one_by_one(triggers, service))


def test_a_line_that_is_slow_enough_never_waits() -> None:
    served = serve(trigger_times(40, 100, 0.0, 0), np.full(100, 20.0))
    assert np.allclose(served.response_ms, 20)
    assert served.greatest_backlog == 1


def test_a_line_that_is_too_fast_falls_behind_by_the_difference_each_time() -> None:
    served = serve(trigger_times(100, 50, 0.0, 0), np.full(50, 12.0))  # every 10 ms
    assert np.allclose(served.response_ms, 12 + 2 * np.arange(50))
    assert served.greatest_backlog == 10  # at 490 ms 40 are done


def test_random_arrivals_wait_as_pollaczek_and_khinchine_say() -> None:
    generator = np.random.default_rng(1)
    rate, takes = 0.05, 12.0  # per ms, ms: busy 60 % of the time
    triggers = np.cumsum(generator.exponential(1 / rate, 400_000))
    waiting = serve(triggers, np.full(len(triggers), takes)).response_ms.mean() - takes
    busy = rate * takes
    assert waiting == pytest.approx(takes * busy / (2 * (1 - busy)), rel=0.03)


def test_one_pause_delays_all_that_come_meanwhile() -> None:
    service = np.full(20, 5.0)
    service[3] = 47.0
    closed_loop = (service > 20).sum()
    served = serve(trigger_times(100, 20, 0.0, 0), service)
    assert closed_loop == 1
    assert (served.response_ms > 20).sum() > 4


@pytest.mark.parametrize(("missed", "triggers"), [(0, 100), (3, 1000), (40, 50)])
def test_the_bound_is_the_probability_at_which_so_few_misses_are_one_chance_in_twenty(
    missed: int, triggers: int
) -> None:
    assert stats.binom.cdf(missed, triggers, miss_bound(missed, triggers)) == pytest.approx(0.05)


def test_all_missed_and_none_missed() -> None:
    assert miss_bound(5, 5) == 1
    assert miss_bound(0, 29_955) > 1e-4 >= miss_bound(0, 29_956)  # the rule of three


def test_the_sustainable_rate_of_constant_passes_is_one_after_the_other() -> None:
    service = np.full(30_000, 8.0)
    assert sustainable_rate(service, 20.0) == pytest.approx(125, rel=1e-3)
    assert sustainable_rate(service, 7.9) is None, "a pass is over the deadline"
    assert sustainable_rate(service[:1000], 20.0) is None, "too few passes to show it"
    assert sustainable_rate(service[:1000], 20.0, at=0.01) == pytest.approx(125, rel=1e-3)


def test_jitter_moves_triggers_within_their_time() -> None:
    plain, shaken = trigger_times(50, 200, 0.0, 0), trigger_times(50, 200, 1.0, 0)
    assert np.allclose(np.diff(plain), 20)
    assert np.abs(shaken - plain).max() <= 10
    assert np.abs(shaken - plain).max() > 8
    assert (np.diff(shaken) >= 0).all()


def test_a_replay_waits_for_triggers_and_not_for_itself() -> None:
    time = [0.0]
    takes = iter([0.004, 0.030, 0.004, 0.004])

    def run() -> None:
        time[0] += next(takes)

    def wait_until(moment: float) -> None:
        time[0] = max(time[0], moment)

    triggers = trigger_times(100, 4, 0.0, 0)
    served, service = replay(triggers, run, lambda: time[0], wait_until)
    assert np.allclose(service, [4, 30, 4, 4])
    assert np.allclose(served.response_ms, serve(triggers, service).response_ms)
    line = describe_line(served, service, 100, 20, 0.0)
    assert (line.triggers, line.missed, line.greatest_backlog) == (4, 2, 3)
    assert line.sustainable_rate is None
