"""The record of one timing process: one line of a machine's file, with its samples beside it.

A row of a table is made of several such lines, as processes differ by more than the passes within one:
:mod:`results.timing_rows`.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from results.parity import Parity
from results.record import ArtefactPrecision, Scalar, Weights

TIMING_SCHEMA_VERSION: Literal[1] = 1

ProtocolName = Literal["paper", "rigorous", "mvtec_ad2"]
Mode = Literal["request", "stream", "device", "line"]
Backend = Literal["eager", "compile", "cudagraph", "onnxruntime", "openvino", "tensorrt"]
Cache = Literal["warm", "cold"]
Status = Literal["VALID", "SUSPECT", "INVALID"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Subject(_Strict):
    """The fitted detector that was timed.

    Attributes:
        method: Name in the registry.
        title: As tables print it.
        config: Its options, all of them.
        deviations: What distinguishes it from the paper's configuration.
        weights: Its pretrained weights.
        fit_key: SHA-256 over everything that determines it.
        model_sha256: Of its ``model.safetensors``.
        scenario: What it was fitted on, ``collection/scenario``.
        train_images: How many normal images.
        training_steps: Optimiser steps done; ``None`` for a method that does not train. Latency does not depend on it.
        train_scale: Factor on the training length; 1 is the method's own.
        memory_bank: Values held in memory banks, 0 without one.
        parameters: Values of the networks that run at inference.
        flops: Floating-point operations per image, two per multiplication with addition, as the profiler counts them in
            the eager module; without searches in a memory bank. ``None`` where they were not counted.
        flops_3x3: Those of ``flops`` in convolutions of 3x3, which some libraries do with fewer multiplications.
        search_flops: ``2 × queries × vectors × channels`` of the search in the memory bank per image; 0 without one.
    """

    method: str
    title: str
    config: dict[str, Scalar | list[Scalar]]
    deviations: list[str] = Field(default_factory=list)
    weights: list[Weights] = Field(default_factory=list)
    fit_key: str
    model_sha256: str
    scenario: str
    train_images: int
    training_steps: int | None
    train_scale: float
    memory_bank: int
    parameters: int
    flops: int | None
    flops_3x3: int = 0
    search_flops: int = 0


class Setting(_Strict):
    """How the passes were run.

    Attributes:
        protocol: Which rules.
        mode: ``request``: one batch at a time, from host memory to the map; ``stream``: batches one after the other
            without waiting; ``device``: without transfers; ``line``: at the times that a camera triggers.
        batch: Images per pass.
        input_size: Height and width of the images in pixels.
        precision: Of the networks.
        post_precision: Of what follows them.
        backend: What runs the module.
        fused: Whether it is the method's fused form for inference.
        region: What is timed, in words: ``images in host memory to maps 256x256 on the device``.
        memory_format: Of the images handed over, ``contiguous`` or ``channels_last``.
        input_dtype: Of the images handed over, such as ``float16``.
        tf32: Whether the factors of float32 products may be rounded to 10 bits.
        cudnn_benchmark: Whether cuDNN may try algorithms.
        deterministic: Whether deterministic algorithms were demanded; a timing with them is invalid.
        pinned: Whether the images are in pinned memory.
        non_blocking: Whether the host goes on while they are transferred.
        cache: ``warm``: as the pass before has left it; ``cold``: the second-level cache of a GPU, or the last-level
            one of a CPU, was flushed before each pass, outside the region.
        clock: ``cuda-events`` or ``host``.
        threads: CPU threads.
    """

    protocol: ProtocolName
    mode: Mode
    batch: int
    input_size: tuple[int, int]
    precision: ArtefactPrecision
    post_precision: Literal["float32"] = "float32"
    backend: Backend
    fused: bool = False
    region: str
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    input_dtype: str
    tf32: bool
    cudnn_benchmark: bool
    deterministic: bool
    pinned: bool
    non_blocking: bool
    cache: Cache = "warm"
    clock: Literal["cuda-events", "host"]
    threads: int

    @property
    def plain(self) -> bool:
        """Whether it is the plain module in float32, with which others are compared."""
        return (self.backend, self.precision, self.fused) == ("eager", "fp32", False)


class Gpu(_Strict):
    """A GPU. What could not be read is ``None``, with its reason in ``unknown``.

    Attributes:
        name: As the driver says.
        part: MIG profile, ``MPS`` or ``vGPU``, which are part of what the device is; empty for a whole GPU.
        memory_bytes: Of the device.
        multiprocessors: Count.
        compute_capability: Such as ``9.0``.
        l2_bytes: Size of its second-level cache.
        power_limit_watts: That holds now.
        default_power_limit_watts: That the vendor sets.
        max_sm_mhz: Highest clock of its multiprocessors.
        pcie: Generation and lanes now, such as ``5 x16``.
        driver: Version.
        unknown: Field to the reason why it could not be read.
    """

    name: str
    part: str = ""
    memory_bytes: int | None = None
    multiprocessors: int | None = None
    compute_capability: str | None = None
    l2_bytes: int | None = None
    power_limit_watts: float | None = None
    default_power_limit_watts: float | None = None
    max_sm_mhz: int | None = None
    pcie: str | None = None
    driver: str | None = None
    unknown: dict[str, str] = Field(default_factory=dict)


class Machine(_Strict):
    """Where it was timed.

    Attributes:
        id: Salted hash of the GPU and the host: the same machine has the same one, and nobody can be told by it.
        cpu: Model of the processor.
        cores: That this process may use.
        instructions: Those of the processor that matter to networks, such as ``avx512_bf16``.
        memory_bytes: Of the host.
        platform: Operating system and kernel.
        python: Version.
        packages: Version of this package and of those it runs on.
        git_commit: Of the checkout; ``None`` for an installed package.
        git_dirty: Whether it had changes.
        gpu: ``None`` where the CPU was timed.
    """

    id: str
    cpu: str
    cores: int
    instructions: list[str] = Field(default_factory=list)
    memory_bytes: int
    platform: str
    python: str
    packages: dict[str, str]
    git_commit: str | None = None
    git_dirty: bool | None = None
    gpu: Gpu | None = None


class GpuState(_Strict):
    """What a process beside the timing saw of the GPU, 20 times a second.

    Attributes:
        samples: How often it looked.
        sm_mhz: Lowest, median and highest clock of the multiprocessors.
        memory_mhz: Median clock of the memory.
        celsius: Temperature at the start, at the end and at most.
        watts: Median power.
        throttled: Reason for lowered clocks to the share of samples that show it.
        other_processes: At most so many others ran on it.
        clock_policy: ``floating``, ``locked``, or why that is not known.
        memory_bytes: Highest memory of this process, by the driver.
    """

    samples: int
    sm_mhz: tuple[int, int, int]
    memory_mhz: int
    celsius: tuple[int, int, int]
    watts: float
    throttled: dict[str, float]
    other_processes: int
    clock_policy: str
    memory_bytes: int | None = None


class HostState(_Strict):
    """How busy the host was.

    Attributes:
        load: Average number of running processes of the last minute, at the start, this one not yet among them.
        steal: Share of the time of the CPUs that it may run on which went to other virtual machines while it was timed;
            ``None`` if unknown.
        throttled_seconds: For which the control group was held back; ``None`` if unknown.
        busy_elsewhere: Share of the CPU time that it may use, by its affinity and its control group, which other
            processes took; ``None`` if unknown.
        garbage_collector: Whether Python's could run in the region.
    """

    load: float
    steal: float | None
    throttled_seconds: float | None
    busy_elsewhere: float | None
    garbage_collector: bool


class Sampling(_Strict):
    """How many passes, and why not more.

    Attributes:
        warm_up: Passes before the first sample.
        warm_up_seconds: They took so long.
        count: Passes timed.
        wanted: Passes that the protocol asks for.
        seconds: All of the timed passes.
        stop_reason: ``count``, ``precise``, ``time budget`` or ``noise``.
        process: Index of this process among those of its row, from 0.
        processes: How many there are to be.
        order: Position in the random order in which the processes of this session ran, from 0.
        cold_start_ms: The first pass, with everything that is done once.
        load_ms: Restoring the model and bringing it to the device.
        compile_ms: Of compiling, capturing or converting; 0 without it.
    """

    warm_up: int
    warm_up_seconds: float
    count: int
    wanted: int
    seconds: float
    stop_reason: Literal["count", "precise", "time budget", "noise"]
    process: int
    processes: int
    order: int
    cold_start_ms: float
    load_ms: float
    compile_ms: float = 0.0


class Distribution(_Strict):
    """Milliseconds of the passes of one process.

    A percentile that the number of samples cannot support is ``None``, never interpolated.

    Attributes:
        mean: Of all samples; none is left out.
        deviation: Standard deviation.
        least: Fastest pass.
        greatest: Slowest pass.
        p50: Median, likewise the others.
        p90_bound: Is not exceeded by the 90th percentile, at 99 % confidence; likewise for the 99th.
        outliers: Samples farther from the median than 14.826 median absolute deviations.
    """

    mean: float
    deviation: float | None
    least: float
    greatest: float
    p50: float
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    p90_bound: float | None
    p99_bound: float | None
    outliers: int


class Line(_Strict):
    """What a production line would have seen.

    Attributes:
        rate: Triggers per second.
        arrivals: ``fixed`` or ``jitter``.
        deadline_ms: From trigger to map.
        triggers: How many.
        missed: How many maps came too late.
        miss_bound: Upper bound of the probability of a miss at 95 % confidence (Clopper and Pearson).
        response: From trigger to map, waiting included.
        greatest_backlog: Most images that waited at once.
        sustainable_rate: Highest rate per second at which the probability of a miss is shown to be at most
            ``sustainable_at``; ``None`` if none is shown.
        sustainable_at: That probability.
    """

    rate: float
    arrivals: Literal["fixed", "jitter"]
    deadline_ms: float
    triggers: int
    missed: int
    miss_bound: float
    response: Distribution
    greatest_backlog: int
    sustainable_rate: float | None
    sustainable_at: float


class Memory(_Strict):
    """Peak memory.

    Attributes:
        reserved_bytes: By PyTorch's allocator on the device, mean over passes of each pass's peak; ``None`` on a CPU.
        process_bytes: Resident memory of the process at its peak.
    """

    reserved_bytes: int | None
    process_bytes: int | None


class Stage(_Strict):
    """What one part of a pass takes, milliseconds.

    Attributes:
        name: ``transfer to device``, ``preprocessing`` (up to the first network), a network or ``search`` as the
            detector calls it, ``between stages``, ``post`` (after the last one) or ``transfer back``.
        p50: Median.
        p99: ``None`` where there were too few passes.
    """

    name: str
    p50: float
    p99: float | None


class Stages(_Strict):
    """What the parts of a pass take, in passes of their own: the marks between them take time too.

    Attributes:
        passes: How many.
        parts: In the order in which they run.
    """

    passes: int
    parts: list[Stage]


class Energy(_Strict):
    """Energy of an image, of the GPU's board only, without what it takes while it waits.

    Attributes:
        mj_per_image: Millijoules; ``None`` where it is not known.
        repeats: Of each loop of at least ten seconds.
        idle_watts: While it waited, the model loaded.
        unknown: Why it is not known; empty where it is.
    """

    mj_per_image: float | None = None
    repeats: list[float] = Field(default_factory=list)
    idle_watts: float | None = None
    unknown: str = ""


class AfterIdle(_Strict):
    """The first pass after a rest, when clocks have been lowered and caches taken.

    Attributes:
        seconds: Of each rest.
        milliseconds: Of each first pass, by the host's clock.
    """

    seconds: float
    milliseconds: list[float]


class Reason(_Strict):
    """Why a measurement is not plainly valid.

    Attributes:
        check: Name of the check, ``V1`` to ``V15`` as docs/timing.md lists them.
        status: What it makes of the measurement.
        text: What was seen, and what is allowed.
    """

    check: str
    status: Literal["SUSPECT", "INVALID"]
    text: str


class Verdict(_Strict):
    """Whether the numbers are a measurement of what they claim to be."""

    status: Status
    reasons: list[Reason] = Field(default_factory=list)


class TimingRecord(_Strict):
    """One process that timed one fitted detector in one setting.

    Attributes:
        session: What the processes of one command have in common.
        wall: By the host's clock, from before the transfer until the host has seen the end.
        event: By events on the device; ``None`` on a CPU.
        cpu: Time of all threads of this process, per pass.
        enqueue: Until the host had handed over everything; ``None`` on a CPU.
        throughput: Images per second: ``batch × passes / sum of passes``, by the protocol's clock.
        stages: What the parts of a pass take; ``None`` where that was not asked for.
        energy: Of an image; ``None`` where that was not asked for.
        after_idle: First passes after a rest; ``None`` where that was not asked for.
        output_sha256: Of the maps of the first images, rounded to four digits.
        exactness: How its results differ from those of the plain module on test images; ``None`` for that module
            itself, and where the images are not at hand.
        samples: File beside this one with every sample.
    """

    schema_version: Literal[1] = TIMING_SCHEMA_VERSION
    session: str
    created: datetime
    command: str
    subject: Subject
    setting: Setting
    machine: Machine
    host_state: HostState
    gpu_state: GpuState | None = None
    sampling: Sampling
    wall: Distribution
    event: Distribution | None = None
    cpu: Distribution
    enqueue: Distribution | None = None
    throughput: float
    line: Line | None = None
    stages: Stages | None = None
    memory: Memory
    energy: Energy | None = None
    after_idle: AfterIdle | None = None
    output_sha256: str
    exactness: Parity | None = None
    verdict: Verdict
    samples: str

    @property
    def energy_mj_per_image(self) -> float | None:
        """Millijoules of the GPU's board; ``None`` where they are not known."""
        return None if self.energy is None else self.energy.mj_per_image
