"""One timing process: it does one job, which it reads from standard input, and ends.

``python -m bench.timing.process time`` times a detector, appends its record to the machine's file and prints it;
``inspect`` prints what a detector is and costs; ``compare``, how exact it is in another setup.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from bench.errors import user_errors
from bench.machine.devices import Slot
from bench.timing.caches import make_flusher
from bench.timing.clocks import Clock, make_clock
from bench.timing.energy import measure_energy
from bench.timing.exactness import compare_setup
from bench.timing.gpu import describe_gpu, energy_counter
from bench.timing.host import describe_machine, watch_host
from bench.timing.inspection import SEED, inspect, read_reference
from bench.timing.job import SESSION_FORMAT, Comparison, Inspection, Job, Trigger
from bench.timing.line import describe_line, replay, trigger_times, wait_until
from bench.timing.measuring import Measurement, measure, time_after_idle
from bench.timing.observing import (
    clock_step_ns,
    compilations,
    digest,
    maps_of_references,
    network_types,
    peak_memory,
    tensors_on_cpu,
    watch_device,
)
from bench.timing.protocols import TimingProtocol, timing_protocol
from bench.timing.sampling import FEWEST, SamplingRules
from bench.timing.stages import make_marks, time_stages
from bench.timing.statistics import distribution, throughput
from bench.timing.subject import ReadyDetector, prepare
from bench.timing.verdicts import Observation, judge
from methods.common.precision import tensor_float_32
from results.parity import Parity
from results.published import gpu_peak
from results.timing_record import AfterIdle, Energy, Line, Machine, Memory, Sampling, Stages, TimingRecord
from results.timing_store import Samples, append_timing, timing_file_name, write_samples


def main() -> None:
    """Do the task that the command line names with the job on standard input."""
    task, job = sys.argv[1], sys.stdin.read()
    try:
        if task == "inspect":
            answer = inspect(Inspection.model_validate_json(job)).model_dump_json()
        elif task == "compare":
            answer = compare(Comparison.model_validate_json(job)).model_dump_json()
        else:
            answer = time_job(Job.model_validate_json(job)).model_dump_json()
    except Exception as error:
        if not isinstance(error, user_errors()):
            raise
        sys.exit(str(error))
    sys.stdout.write(answer + "\n")


def compare(comparison: Comparison) -> Parity:
    """Compare a setup with the plain module, in the state of PyTorch in which it is timed."""
    torch.set_num_threads(comparison.setup.threads)
    if comparison.setup.device != "cpu":
        torch.cuda.set_device(comparison.setup.device)
    with torch.inference_mode(), tensor_float_32(False):
        return compare_setup(comparison)


def time_job(job: Job) -> TimingRecord:
    """Time one detector in one setup, judge what was measured, and record it.

    Raises:
        BenchError: The setup is impossible here, or the model is damaged.
        MethodError: The method cannot use the model.
        ResultError: The record cannot be written.
    """
    torch.set_num_threads(job.setup.threads)
    device = torch.device(job.setup.device)
    protocol = timing_protocol(job.setup.protocol).on(job.setup.device).in_mode(job.setup.mode, job.setup.device)
    gpu, identity = None, ""
    if device.type == "cuda":
        torch.cuda.set_device(device)  # events and graphs belong to the current one
        gpu, identity = describe_gpu(device)
    machine = describe_machine(Slot(0, job.setup.device, job.setup.threads), gpu, identity)
    with torch.inference_mode(), tensor_float_32(False):
        ready = prepare(job.model, job.setup, protocol)
        before = _precede(ready, make_flusher(device) if job.setup.cache == "cold" else None)
        compiled = compilations()
        with watch_device(device) as gpu_watch, watch_host() as host_watch:
            clock = make_clock(device, job.setup.mode)
            # A line and stages are timed after passes alone, each for as long.
            shares = 1 + (job.line is not None) + job.extras.stages
            budget = None if job.time_budget is None else job.time_budget / shares
            measured = measure(ready.passes, clock, SamplingRules(protocol, budget), before=before)
            line = None if job.line is None else _line(job.line, ready, clock, protocol.passes, budget)
        recompiled = compilations() - compiled
        stages = _stages(ready, protocol, device, budget) if job.extras.stages else None
        energy = _energy(ready, clock, device) if job.extras.energy else None
        rest = job.extras.after_idle
        after_idle = None if rest is None else time_after_idle(ready.passes, clock, rest)
        del before  # a cold cache's memory is none of the detector's
        memory = peak_memory(ready.passes, device)
        maps = maps_of_references(ready.runner.run, ready.passes.batches[0], device)
    samples = measured.samples()
    assert host_watch.state is not None
    seen = Observation(
        subject=job.subject,
        setting=ready.setting,
        wall=samples.wall_ms,
        event=samples.event_ms,
        wanted=protocol.passes,
        resolution_ns=clock_step_ns(),
        host=host_watch.state,
        gpu=gpu_watch.state,
        peak=gpu_peak(gpu.name) if gpu is not None else None,
        maps=maps,
        reference=read_reference(job.reference),
        inputs=ready.passes.inputs.numpy(),
        on_cpu=tensors_on_cpu(ready.module) if gpu is not None else (),
        precisions=ready.runner.types or network_types(ready.module),
        recompiled=recompiled,
        not_compared=job.not_compared,
    )
    further = _Further(_sampling(job, protocol, ready, measured), line, stages, memory, energy, after_idle)
    return _record(job, machine, seen, samples, further)


@dataclass(frozen=True)
class _Further:
    """What a record says that no verdict depends on."""

    sampling: Sampling
    line: Line | None
    stages: Stages | None
    memory: Memory
    energy: Energy | None
    after_idle: AfterIdle | None


def _record(job: Job, machine: Machine, seen: Observation, samples: Samples, further: _Further) -> TimingRecord:
    """Judge what was seen, and write it: samples first, as the record exists from the moment that all is there."""
    started = datetime.strptime(job.session, SESSION_FORMAT).replace(tzinfo=UTC)
    file = job.out / timing_file_name(machine.id, started, machine.git_commit)
    name = f"{file.stem}/{job.order:04d}.npz"
    record = TimingRecord(
        session=job.session,
        created=datetime.now(UTC),
        command=job.command,
        subject=job.subject,
        setting=seen.setting,
        machine=machine,
        host_state=seen.host,
        gpu_state=seen.gpu,
        sampling=further.sampling,
        wall=distribution(samples.wall_ms),
        cpu=distribution(samples.cpu_ms),
        event=None if samples.event_ms is None else distribution(samples.event_ms),
        enqueue=None if samples.enqueue_ms is None else distribution(samples.enqueue_ms),
        throughput=throughput(job.setup.batch, seen.milliseconds),
        line=further.line,
        stages=further.stages,
        memory=further.memory,
        energy=further.energy,
        after_idle=further.after_idle,
        output_sha256=digest(seen.maps),
        exactness=job.exactness,
        verdict=judge(seen),
        samples=name,
    )
    write_samples(job.out / name, samples)
    append_timing(file, record)
    return record


def _line(trigger: Trigger, ready: ReadyDetector, clock: Clock, count: int, budget: float | None) -> Line:
    """Let a camera trigger ``count`` times, or as often as it does in the time budget, if there is one."""
    if budget is not None:
        count = max(FEWEST, round(budget * trigger.rate))
    triggers = trigger_times(trigger.rate, count, trigger.jitter, SEED)
    served, service = replay(triggers, lambda: clock.time(ready.passes), time.perf_counter, wait_until)
    return describe_line(served, service, trigger.rate, trigger.deadline_ms, trigger.jitter)


def _precede(ready: ReadyDetector, flush: Callable[[], object] | None) -> Callable[[], object]:
    """What is done before each pass and is no part of it."""

    def before() -> None:
        ready.passes.load()
        if flush is not None:
            flush()

    return before


def _stages(ready: ReadyDetector, protocol: TimingProtocol, device: torch.device, budget: float | None) -> Stages:
    batches, marks = ready.passes.batches, make_marks(device)
    return time_stages(ready.module, batches, device, marks, non_blocking=protocol.non_blocking, seconds=budget)


def _energy(ready: ReadyDetector, clock: Clock, device: torch.device) -> Energy:
    if device.type != "cuda":
        return Energy(unknown="a CPU has no counter that is read here")
    counter = energy_counter(device)
    if isinstance(counter, str):
        return Energy(unknown=counter)

    def run() -> None:
        ready.passes.load()
        clock.time(ready.passes)

    return measure_energy(run, ready.setting.batch, counter)


def _sampling(job: Job, protocol: TimingProtocol, ready: ReadyDetector, measured: Measurement) -> Sampling:
    return Sampling(
        warm_up=measured.warm_up,
        warm_up_seconds=measured.warm_up_seconds,
        count=len(measured.readings),
        wanted=protocol.passes,
        seconds=measured.seconds,
        stop_reason=measured.stop_reason,
        process=job.process,
        processes=job.processes,
        order=job.order,
        cold_start_ms=ready.cold_start_ms,
        load_ms=ready.load_ms,
        compile_ms=ready.compile_ms,
    )


if __name__ == "__main__":
    main()
