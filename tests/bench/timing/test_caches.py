"""Cold caches: how large they are, and what is done before each pass."""

from pathlib import Path

import pytest
import torch

from bench.errors import UsageError
from bench.timing import caches
from bench.timing.caches import last_cache_bytes, make_flusher
from bench.timing.clocks import HostClock
from bench.timing.measuring import measure
from bench.timing.protocols import timing_protocol
from bench.timing.sampling import SamplingRules

CPU = torch.device("cpu")


def write_caches(folder: Path, *sizes: tuple[str, str]) -> None:
    for number, (level, size) in enumerate(sizes):
        cache = folder / f"index{number}"
        cache.mkdir()
        (cache / "level").write_text(f"{level}\n")
        (cache / "size").write_text(f"{size}\n")


def test_the_last_cache_is_that_of_the_highest_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_caches(tmp_path, ("1", "48K"), ("1", "32K"), ("2", "2048K"), ("3", "30M"))
    monkeypatch.setattr(caches, "_CPU_CACHES", tmp_path)
    assert last_cache_bytes(CPU) == 30 * 2**20


def test_without_its_size_a_cache_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_caches(tmp_path, ("3", "unknown"))
    monkeypatch.setattr(caches, "_CPU_CACHES", tmp_path)
    with pytest.raises(UsageError, match="pass --cache warm"):
        make_flusher(CPU)


def test_exactly_the_cache_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_caches(tmp_path, ("2", "64K"))
    monkeypatch.setattr(caches, "_CPU_CACHES", tmp_path)
    flush = make_flusher(CPU)
    flush()
    held = flush()
    assert isinstance(held, torch.Tensor)
    assert held.numel() == 64 * 2**10
    assert set(held.tolist()) == {2}


def test_what_is_done_before_each_pass_is_no_part_of_it() -> None:
    time_ns, done = [0], []

    def flush() -> None:
        done.append("flush")
        time_ns[0] += 9_000_000

    def run() -> None:
        done.append("pass")
        time_ns[0] += 2_000_000

    clock = HostClock(lambda: time_ns[0], lambda: time_ns[0])
    measured = measure(run, clock, SamplingRules(timing_protocol("paper")), lambda: time_ns[0] / 1e9, before=flush)
    assert {reading.wall for reading in measured.readings} == {2.0}
    assert done == ["flush", "pass"] * 2000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_cache_has_a_size() -> None:
    gpu = torch.device("cuda", 0)
    size = last_cache_bytes(gpu)
    assert size is not None
    held = make_flusher(gpu)()
    assert isinstance(held, torch.Tensor)
    assert held.numel() == size
