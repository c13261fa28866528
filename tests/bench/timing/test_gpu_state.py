"""What is seen of a GPU, by a management library that answers what it is told."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.timing.gpu import GpuSample, sample, summarise, watch_gpu


def nvml(**changes: Any) -> Any:
    answers: dict[str, Any] = {
        "NVML_CLOCK_SM": "sm",
        "NVML_CLOCK_MEM": "memory",
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlDeviceGetComputeRunningProcesses": lambda _: [SimpleNamespace(pid=7, usedGpuMemory=2**30)],
        "nvmlDeviceGetClockInfo": lambda _, kind: {"sm": 1980, "memory": 2619}[kind],
        "nvmlDeviceGetTemperature": lambda _, __: 41,
        "nvmlDeviceGetPowerUsage": lambda _: 350_500,
        "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 0,
    }
    return SimpleNamespace(**{**answers, **changes})


def test_a_look_reads_units_as_they_are() -> None:
    assert sample(nvml(), None, owner=7) == GpuSample(1980, 2619, 41, 350.5, 0, 0, 2**30)


def test_other_processes_are_counted_and_their_memory_is_not_ours() -> None:
    running = [SimpleNamespace(pid=7, usedGpuMemory=100), SimpleNamespace(pid=9, usedGpuMemory=900)]
    seen = sample(nvml(nvmlDeviceGetComputeRunningProcesses=lambda _: running), None, owner=7)
    assert (seen.others, seen.own_bytes) == (1, 100)


def test_in_a_container_our_process_has_another_number() -> None:
    running = [SimpleNamespace(pid=70_001, usedGpuMemory=100)]
    seen = sample(nvml(nvmlDeviceGetComputeRunningProcesses=lambda _: running), None, owner=7)
    assert (seen.others, seen.own_bytes) == (0, None)


def test_samples_are_summed_up() -> None:
    samples = [
        GpuSample(sm_mhz, 2619, celsius, watts, reasons, 0, own)
        for sm_mhz, celsius, watts, reasons, own in [
            (345, 35, 70.0, 0x1, None),  # idle: no throttling
            (1980, 50, 300.0, 0x0, 2000),
            (1980, 61, 600.0, 0x4, 3000),
            (1700, 60, 700.0, 0x4 | 0x40, 2500),
        ]
    ]
    state = summarise(samples)
    assert state.sm_mhz == (345, 1840, 1980)
    assert state.celsius == (35, 60, 61)
    assert state.watts == 450.0
    assert state.throttled == {"software power cap": 0.5, "hardware thermal slowdown": 0.25}
    assert state.memory_bytes == 3000
    assert state.clock_policy == "floating"


def test_one_clock_throughout_is_said() -> None:
    assert summarise([GpuSample(1200, 1, 1, 1.0, 0, 0, None)] * 3).clock_policy == "did not change"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_watched_from_another_process() -> None:
    with watch_gpu(torch.device("cuda", 0)) as watch:
        time.sleep(0.5)
    assert watch.reason or (watch.state is not None and watch.state.samples >= 3)
