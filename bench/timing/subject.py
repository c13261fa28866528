"""A fitted detector made ready to be timed: restored, cast, compiled, with its images."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.models import load_detector, read_description
from bench.timing.backends import Captured, Runner, casts_itself, make_runner
from bench.timing.inspection import SEED
from bench.timing.job import Job
from bench.timing.passes import Passes, ReplayedPasses, StreamedPasses
from bench.timing.protocols import TimingProtocol, describe_region
from bench.timing.workload import make_batches
from methods.common.precision import check_precision, set_precision
from results.timing_record import Setting


@dataclass(frozen=True, eq=False)
class ReadyDetector:
    """A detector whose passes can be timed.

    Attributes:
        module: Of the detector, in its precision, on its device.
        runner: What runs it.
        passes: Its passes.
        setting: As a record says it.
        load_ms: Restoring took so long.
        compile_ms: Compiling or capturing, with the first pass; 0 of an eager module.
        cold_start_ms: The first pass of what was prepared.
    """

    module: nn.Module
    runner: Runner
    passes: Passes
    setting: Setting
    load_ms: float
    compile_ms: float
    cold_start_ms: float


def prepare(job: Job, protocol: TimingProtocol) -> ReadyDetector:
    """Restore a detector and make ready what its setup asks for.

    Raises:
        UsageError: The model was kept in another precision than it is to be timed in.
        DataError: The model is damaged.
        MethodError: The device only emulates the precision, or the method cannot use the model.
    """
    setup, device = job.setup, torch.device(job.setup.device)
    check_precision(setup.precision, device, forced=False)
    kept = read_description(job.model).precision
    if kept not in ("fp32", setup.precision):
        raise UsageError(f"the model was kept in {kept} and cannot be timed in {setup.precision}")
    start = time.perf_counter()
    detector = load_detector(job.model, setup.device)
    module = detector.module()
    if kept != setup.precision and not casts_itself(setup.backend):
        set_precision(module, setup.precision)
    load_ms = _milliseconds_since(start, device)
    batches = make_batches(
        setup.batch,
        detector.input_size,
        getattr(torch, protocol.input_dtype),
        pinned=protocol.pinned,
        seed=SEED,
    )
    start = time.perf_counter()
    runner = make_runner(setup.backend, module, batches[0].to(device), setup.precision, setup.threads)
    if setup.mode == "device":
        run = runner.run
        runner = replace(runner, run=run if isinstance(run, Captured) else Captured(run, batches[0].to(device)))
    compile_ms = _milliseconds_since(start, device) if setup.backend != "eager" or setup.mode == "device" else 0.0
    passes = _make_passes(runner, batches, device, protocol)
    start = time.perf_counter()
    passes.load()
    passes()
    cold_start_ms = _milliseconds_since(start, device)
    return ReadyDetector(
        module, runner, passes, _setting(job, protocol, detector.input_size), load_ms, compile_ms, cold_start_ms
    )


def _make_passes(runner: Runner, batches: Sequence[Tensor], device: torch.device, protocol: TimingProtocol) -> Passes:
    if isinstance(runner.run, Captured) and protocol.mode == "device":
        return ReplayedPasses(runner.run, batches, device)
    if protocol.mode == "stream" and device.type == "cuda":
        return StreamedPasses(runner.run, batches, device)
    return Passes(runner.run, batches, device, protocol.region, non_blocking=protocol.non_blocking)


def _setting(job: Job, protocol: TimingProtocol, input_size: tuple[int, int]) -> Setting:
    setup = job.setup
    return Setting(
        protocol=setup.protocol,
        mode=setup.mode,
        batch=setup.batch,
        input_size=input_size,
        precision=setup.precision,
        backend=setup.backend,
        region=describe_region(protocol.region, setup.device, setup.mode),
        input_dtype=protocol.input_dtype,
        tf32=torch.backends.cudnn.allow_tf32,
        cudnn_benchmark=torch.backends.cudnn.benchmark,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        pinned=protocol.pinned,
        non_blocking=protocol.non_blocking,
        cache=setup.cache,
        clock="host" if setup.device == "cpu" or setup.mode == "stream" else "cuda-events",
        threads=torch.get_num_threads(),
    )


def _milliseconds_since(start: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1e3 * (time.perf_counter() - start)
