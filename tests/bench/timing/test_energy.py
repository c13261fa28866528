"""The energy of an image, by a counter and a clock that are told what to say."""

import time
from dataclasses import dataclass

import pytest
import torch

from bench.timing.energy import IDLE_SECONDS, LOOP_SECONDS, measure_energy
from bench.timing.gpu import energy_counter


@dataclass
class Board:
    """A GPU that takes so many watts while it waits and so many while it works; its counter is updated at times."""

    idle: float = 80.0
    busy: float = 300.0
    pass_seconds: float = 0.01
    period: float = 0.1
    seconds: float = 0.0
    millijoules: float = 0.0
    seen: float = 0.0
    passes: int = 0

    def spend(self, seconds: float, watts: float) -> None:
        updates = (self.seconds + seconds) // self.period > self.seconds // self.period
        self.seconds += seconds
        self.millijoules += 1e3 * watts * seconds
        if updates:
            self.seen = self.millijoules

    def run(self) -> None:
        self.passes += 1
        self.spend(self.pass_seconds, self.busy)

    def sleep(self, seconds: float) -> None:
        for _ in range(round(seconds * 1e3)):
            self.spend(1e-3, self.idle)

    def counter(self) -> float:
        return self.seen

    def now(self) -> float:
        return self.seconds


@pytest.mark.parametrize("images", [1, 16])
def test_an_image_takes_what_passes_take_above_waiting(images: int) -> None:
    board = Board()
    energy = measure_energy(board.run, images, board.counter, now=board.now, sleep=board.sleep)
    assert energy.mj_per_image == pytest.approx((300 - 80) * 10 / images, rel=0.02)
    assert energy.idle_watts == pytest.approx(80, rel=0.03)
    assert len(energy.repeats) == 3
    assert energy.mj_per_image == pytest.approx(sum(energy.repeats) / 3)
    assert energy.unknown == ""


def test_each_loop_is_long_enough_for_the_counter() -> None:
    board = Board()
    measure_energy(board.run, 1, board.counter, now=board.now, sleep=board.sleep)
    assert board.passes * board.pass_seconds >= 3 * LOOP_SECONDS
    assert board.seconds >= 3 * LOOP_SECONDS + IDLE_SECONDS


def test_a_counter_that_stands_still_gives_no_value() -> None:
    board = Board(period=1e9)
    energy = measure_energy(board.run, 1, board.counter, now=board.now, sleep=board.sleep)
    assert energy.mj_per_image is None
    assert energy.unknown


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_counter_runs_in_millijoules() -> None:
    device = torch.device("cuda", 0)
    counter = energy_counter(device)
    if isinstance(counter, str):
        pytest.skip(counter)
    torch.zeros(1, device=device)
    start, before = time.perf_counter(), counter()
    time.sleep(2)
    watts = (counter() - before) / 1e3 / (time.perf_counter() - start)
    assert 3 < watts < 2000
