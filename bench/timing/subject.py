"""A fitted detector made ready to be timed: restored, cast, compiled, with its images."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.artefacts.exporting import artefact_name
from bench.artefacts.running import Artefact, open_artefact
from bench.errors import DataError, UsageError
from bench.models import load_detector, read_description
from bench.timing.backends import Captured, Runner, casts_itself, make_runner, quantised_runner
from bench.timing.inspection import SEED
from bench.timing.job import Setup
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


def prepare(model: Path, setup: Setup, protocol: TimingProtocol) -> ReadyDetector:
    """Restore a detector and make ready what its setup asks for.

    Args:
        model: Folder of the cell that has kept it.
        setup: How it is to be run.
        protocol: On its device.

    Raises:
        UsageError: The model was kept in another precision than it is to be timed in, or was not exported in it.
        DataError: The model is damaged.
        MethodError: The device only emulates the precision, or the method cannot use the model or has no fused form.
    """
    device = torch.device(setup.device)
    if setup.precision != "int8":
        check_precision(setup.precision, device, forced=False)
    kept = read_description(model).precision
    if kept not in ("fp32", setup.precision):
        raise UsageError(f"the model was kept in {kept} and cannot be timed in {setup.precision}")
    start = time.perf_counter()
    detector = load_detector(model, setup.device)
    module = detector.fused_module() if setup.fused else detector.module()
    if setup.precision != "int8" and kept != setup.precision and not casts_itself(setup.backend):
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
    if setup.precision == "int8":
        runner = quantised_runner(quantised_artefact(model, setup))
    else:
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
        module, runner, passes, _setting(setup, protocol, detector.input_size), load_ms, compile_ms, cold_start_ms
    )


def quantised_artefact(model: Path, setup: Setup) -> Artefact:
    """What ``bench export`` has made of a kept model in 8 bits: which training images it saw, the file says.

    Raises:
        UsageError: It was not exported, or for another batch size.
        DataError: The file is damaged, or that of another model.
    """
    description = read_description(model)
    path = model / artefact_name(description.method, "openvino", "int8", fused=setup.fused)
    fused, batch = " --fused" if setup.fused else "", f" --batch {setup.batch}" if setup.batch != 1 else ""
    command = f"  bench export {model} --format openvino --precision int8{fused}{batch} --allow-flips writes it."
    if not path.is_file():
        raise UsageError(f"this model has not been quantised: there is no {path.name} beside it\n{command}")
    artefact = open_artefact(path, setup.threads)
    if artefact.description.model_sha256 != description.sha256:
        raise DataError(f"{path} was made of another model than the one beside it\n{command}")
    if artefact.description.batch != setup.batch:
        raise UsageError(f"{path} takes {artefact.description.batch} images at a time, not {setup.batch}\n{command}")
    return artefact


def _make_passes(runner: Runner, batches: Sequence[Tensor], device: torch.device, protocol: TimingProtocol) -> Passes:
    if isinstance(runner.run, Captured) and protocol.mode == "device":
        return ReplayedPasses(runner.run, batches, device)
    if protocol.mode == "stream" and device.type == "cuda":
        return StreamedPasses(runner.run, batches, device)
    return Passes(runner.run, batches, device, protocol.region, non_blocking=protocol.non_blocking)


def _setting(setup: Setup, protocol: TimingProtocol, input_size: tuple[int, int]) -> Setting:
    return Setting(
        protocol=setup.protocol,
        mode=setup.mode,
        batch=setup.batch,
        input_size=input_size,
        precision=setup.precision,
        backend=setup.backend,
        fused=setup.fused,
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
