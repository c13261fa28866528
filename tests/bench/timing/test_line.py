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


def singly(count: int, triggers: int) -> np.ndarray:
    """Misses of which no two stand next to each other, the first and perhaps the last trigger among them."""
    missed = np.zeros(triggers, np.bool_)
    missed[: 2 * count : 2] = True
    return missed


@pytest.mark.parametrize(("count", "triggers"), [(0, 100), (1, 1), (3, 1000), (25, 49), (24, 49)])
def test_the_bound_is_the_probability_at_which_so_few_misses_are_one_chance_in_twenty(
    count: int, triggers: int
) -> None:
    bound = miss_bound(singly(count, triggers))
    assert bound == 1 if count == triggers else stats.binom.cdf(count, triggers, bound) == pytest.approx(0.05)


def test_all_missed_and_none_missed() -> None:
    assert miss_bound(np.ones(5, np.bool_)) == 1
    assert miss_bound(singly(0, 29_955)) > 1e-4 >= miss_bound(singly(0, 29_956))  # the rule of three


def test_misses_in_a_row_tell_as_much_as_one_in_fewer_triggers() -> None:
    assert miss_bound(np.repeat(singly(3, 1000), 7)) == pytest.approx(miss_bound(singly(3, 1000)))
    both = np.concatenate([np.repeat(singly(2, 100), 3), singly(4, 100)])  # 6 misses in threes, 4 alone: 2.2 on average
    assert stats.beta.cdf(miss_bound(both), 10 / 2.2 + 1, 390 / 2.2) == pytest.approx(0.95)


def test_the_bound_holds_where_pauses_delay_many_images() -> None:
    generator, triggers = np.random.default_rng(2), trigger_times(100, 10_000, 0.0, 0)

    def missed() -> np.ndarray:
        service = np.where(generator.random(10_000) < 2e-3, 65.0, 5.0)
        return serve(triggers, service).response_ms > 20

    true = np.mean([missed().mean() for _ in range(100)])
    holds = np.mean([miss_bound(missed()) >= true for _ in range(300)])
    assert 0.93 <= holds <= 1, "as if misses came singly it would be 0.7"


def test_the_sustainable_rate_of_constant_passes_is_one_after_the_other() -> None:
    service = np.full(30_000, 8.0)
    assert sustainable_rate(service, 20.0) == pytest.approx(125, rel=1e-3)
    assert sustainable_rate(service, 7.9) is None, "a pass is over the deadline"
    assert sustainable_rate(service[:1000], 20.0) is None, "too few passes to show it"
    assert sustainable_rate(service[:1000], 20.0, at=0.01) == pytest.approx(125, rel=1e-3)


def test_a_line_whose_triggers_are_shifted_sustains_less() -> None:
    service = np.full(30_000, 8.0)
    still, shaken = sustainable_rate(service, 9.0), sustainable_rate(service, 9.0, jitter=0.5)
    assert still is not None
    assert shaken is not None
    assert shaken < 0.8 * still
    # Two triggers may come half a period closer, and then still as far apart as a pass less what the deadline leaves.
    assert shaken == pytest.approx(1e3 * (1 - 0.5) / (8.0 - 1.0), rel=0.02)


def test_a_line_is_described_with_its_own_triggers() -> None:
    triggers, service = trigger_times(40, 30_000, 0.5, 0), np.full(30_000, 8.0)
    served = serve(triggers, service)
    shaken, still = (describe_line(served, service, 40, 9.0, jitter) for jitter in (0.5, 0.0))
    assert (shaken.arrivals, still.arrivals) == ("jitter", "fixed")
    assert shaken.sustainable_rate == sustainable_rate(service, 9.0, jitter=0.5)
    assert still.sustainable_rate == sustainable_rate(service, 9.0)


def test_jitter_moves_triggers_within_their_time() -> None:
    plain, shaken = trigger_times(50, 200, 0.0, 0), trigger_times(50, 200, 1.0, 0)
    assert np.allclose(np.diff(plain), 20)
    assert plain[0] == shaken[0] == 0
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
