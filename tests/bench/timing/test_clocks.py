"""Clocks, driven by injected times: what is in a reading, and what an unsynchronised timer would have shown."""

from dataclasses import dataclass, field

import pytest
import torch

from bench.timing.clocks import CudaClock, HostClock, StreamClock, make_clock

DEVICE = torch.device("cuda", 0)


@dataclass
class FakeGpu:
    """A host and a device with their own time: work is queued at once and done later."""

    host_ns: int = 0
    idle_at_ns: int = 0
    synchronised: list[int] = field(default_factory=list)

    def now(self) -> int:
        return self.host_ns

    def launch(self, microseconds: int) -> None:
        """Queue work: the host spends 5 µs on it."""
        self.host_ns += 5_000
        self.idle_at_ns = max(self.idle_at_ns, self.host_ns) + 1_000 * microseconds

    def synchronise(self, _: torch.device | None = None) -> None:
        self.host_ns = max(self.host_ns, self.idle_at_ns)
        self.synchronised.append(self.host_ns)


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu, self.at_ns = gpu, 0

    def record(self) -> None:
        self.at_ns = max(self._gpu.host_ns, self._gpu.idle_at_ns)

    def synchronize(self) -> None:
        self._gpu.synchronise()

    def elapsed_time(self, end: "FakeEvent") -> float:
        return (end.at_ns - self.at_ns) / 1e6


def cuda_clock(gpu: FakeGpu) -> CudaClock:
    return CudaClock(DEVICE, gpu.now, lambda: 2 * gpu.host_ns, lambda: FakeEvent(gpu), gpu.synchronise)


def test_a_pass_lasts_until_the_device_has_done_it() -> None:
    gpu = FakeGpu()

    def run() -> None:
        for _ in range(4):
            gpu.launch(100)

    reading = cuda_clock(gpu).time(run)
    assert reading.enqueue == pytest.approx(0.020)  # what a timer that does not wait would have called the latency
    assert reading.event == pytest.approx(0.405)  # the first launch is 5 µs after the first event
    assert reading.wall == pytest.approx(0.405)
    assert reading.cpu == pytest.approx(2 * 0.405)


def test_what_was_queued_before_is_no_part_of_a_pass() -> None:
    gpu = FakeGpu()
    gpu.launch(10_000)
    reading = cuda_clock(gpu).time(lambda: gpu.launch(100))
    assert reading.wall == pytest.approx(0.105)
    assert reading.event == pytest.approx(0.105)
    assert len(gpu.synchronised) == 2  # before and after


def test_the_hosts_clock_reads_both_times_around_the_pass() -> None:
    ticks = iter([1_000_000, 4_500_000])
    cpu = iter([0, 7_000_000])
    done = []
    reading = HostClock(lambda: next(ticks), lambda: next(cpu)).time(lambda: done.append(1))
    assert (reading.wall, reading.cpu, reading.event, reading.enqueue) == (3.5, 7.0, None, None)
    assert done == [1]


def test_times_of_a_stream_make_up_the_whole() -> None:
    gpu = FakeGpu()
    clock = StreamClock(gpu.now, lambda: 2 * gpu.host_ns)
    ends, under_way = [], []

    def run() -> None:  # two are under way at most: the host waits for the one before the last
        if len(under_way) == 2:
            gpu.host_ns = max(gpu.host_ns, under_way.pop(0))
        gpu.launch(100)
        under_way.append(gpu.idle_at_ns)

    for _ in range(2):
        clock.time(run)
    start = gpu.host_ns
    for _ in range(50):
        ends.append(clock.time(run))
        gpu.host_ns += 3_000  # what the host does between passes costs nothing while the device works
    assert sum(reading.wall for reading in ends) == pytest.approx((gpu.host_ns - 3_000 - start) / 1e6)
    assert [reading.wall for reading in ends[5:]] == pytest.approx([0.1] * 45)
    assert ends[-1].cpu == pytest.approx(0.2)
    assert ends[-1].event is None


def test_a_streams_clock_is_the_hosts() -> None:
    assert make_clock(torch.device("cpu"), "stream").name == "host"


def test_a_cpu_is_timed_by_the_hosts_clock() -> None:
    clock = make_clock(torch.device("cpu"))
    assert clock.name == "host"
    reading = clock.time(lambda: sum(range(10_000)))
    assert 0 < reading.wall < 10_000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_events_agree_with_the_host() -> None:
    clock = make_clock(DEVICE)
    images = torch.rand(2048, 2048, device=DEVICE)
    readings = [clock.time(lambda: [images @ images for _ in range(20)]) for _ in range(20)][10:]
    for reading in readings:
        assert reading.event is not None
        assert reading.enqueue is not None
        assert reading.event <= reading.wall * 1.05
        assert reading.enqueue < reading.wall
