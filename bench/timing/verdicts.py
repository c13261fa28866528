"""Whether a measurement is one: checks that each name what is wrong with it. docs/timing.md lists them.

A check sees what was observed and returns a reason or nothing. INVALID says that the number is not what it claims to
be; SUSPECT that it may not be repeatable.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.timing.statistics import drift, spread
from results.published import GpuPeak
from results.timing_record import GpuState, HostState, Reason, Setting, Status, Subject, Verdict

FLOPS = {"efficientad_s": 75.895e9, "efficientad_m": 235.411e9}
"""Of EfficientAD without padding at 256x256 (Batzner et al., WACV 2024, Table 15 with more digits)."""
_WINOGRAD = 2.25
_TOLERANCE = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.25, "int8": math.inf}
"""Of maps, as a share of the range of the plain float32 module's: more is another result, not rounding.

8 bits hold values as large as those of normal images and clip larger ones, of which random images have many: what that
changes on real ones, the row's exactness says.
"""


@dataclass(frozen=True)
class Observation:
    """Everything that a process has seen.

    Attributes:
        subject: What was timed.
        setting: How.
        wall: Milliseconds of each pass by the host's clock.
        event: By events on the device; ``None`` on a CPU.
        wanted: Passes that the protocol asks for.
        resolution_ns: Smallest step of the clock.
        host: How busy the host was.
        gpu: State of the GPU; ``None`` on a CPU, or where nothing could be read.
        peak: What the GPU can do at most, as its vendor says; ``None`` where that is not known.
        maps: Of different images, (N, h, w), by the artefact that was timed.
        reference: Of the same images by the plain float32 module, (N, h, w).
        inputs: The first images that were timed, any type, (N, ...).
        on_cpu: Names of parameters and buffers that lie on the CPU, where a GPU is timed.
        precisions: Types of the networks' floating-point parameters.
        recompiled: How often something was compiled while samples were taken.
        not_compared: Why results on test images were not compared with the plain module's; empty if they were.
    """

    subject: Subject
    setting: Setting
    wall: NDArray[np.float64]
    event: NDArray[np.float64] | None
    wanted: int
    resolution_ns: float
    host: HostState
    gpu: GpuState | None
    peak: GpuPeak | None
    maps: NDArray[np.float32]
    reference: NDArray[np.float32]
    inputs: NDArray[np.generic]
    on_cpu: Sequence[str] = ()
    precisions: frozenset[str] = frozenset()
    recompiled: int = 0
    not_compared: str = ""

    @property
    def milliseconds(self) -> NDArray[np.float64]:
        """By the clock of the setting."""
        return self.wall if self.event is None else self.event


Check = Callable[[Observation], Reason | None]


def judge(observation: Observation) -> Verdict:
    """Apply all checks; the verdict is as bad as the worst reason."""
    reasons = [reason for check in CHECKS if (reason := check(observation)) is not None]
    return Verdict(status=worst([reason.status for reason in reasons]), reasons=reasons)


def worst(statuses: Sequence[Status]) -> Status:
    """The worst of several; of none VALID."""
    order: tuple[Status, ...] = ("INVALID", "SUSPECT", "VALID")
    return next(status for status in order if status in statuses or status == "VALID")


def _invalid(check: str, text: str) -> Reason:
    return Reason(check=check, status="INVALID", text=text)


def _suspect(check: str, text: str) -> Reason:
    return Reason(check=check, status="SUSPECT", text=text)


def synchronised(seen: Observation) -> Reason | None:
    """V1: the host's clock and the device's events agree, to 5 % or 50 µs."""
    if seen.event is None:
        return None
    wall, event = float(np.median(seen.wall)), float(np.median(seen.event))
    if wall < 0.95 * event:
        return _invalid("V1", f"the host saw a pass end after {wall:.3f} ms, the device after {event:.3f} ms")
    if wall - event > max(0.05, 0.05 * event):
        return _invalid("V1", f"events cover {event:.3f} ms of the {wall:.3f} ms of a pass: another stream, or none")
    return None


def possible(seen: Observation) -> Reason | None:
    """V2: no pass is faster than the chip can compute it.

    Libraries may take float32 convolutions of 3x3 by Winograd's F(2x2, 3x3), which multiplies 2.25 times less than is
    counted (Lavin and Gray, CVPR 2016); products on tensor cores, TF32 among them, are as many as are counted.
    """
    if seen.peak is None or not seen.subject.flops:
        return None
    rate = seen.peak.tflops(seen.setting.precision, tf32=seen.setting.tf32)
    flops = float(seen.subject.flops)
    if seen.setting.precision == "fp32" and not seen.setting.tf32:
        flops -= seen.subject.flops_3x3 * (1 - 1 / _WINOGRAD)
    floor = seen.setting.batch * flops / (rate * 1e9)
    median = float(np.median(seen.milliseconds))
    if median < floor:
        return _invalid("V2", f"{median:.4f} ms is less than the {floor:.4f} ms that {rate:g} TFLOP/s need")
    return None


def not_throttled(seen: Observation) -> Reason | None:
    """V3: the GPU was not held back in more than 1 % of the looks at it, nor slower than 75 % of its clock."""
    if seen.gpu is None:
        return None
    share = max(seen.gpu.throttled.values(), default=0.0)
    if share > 0.1:
        return _invalid("V3", f"throttled in {share:.0%} of the looks at the GPU: {_names(seen.gpu.throttled)}")
    if share > 0.01:
        return _suspect("V3", f"throttled in {share:.0%} of the looks at the GPU: {_names(seen.gpu.throttled)}")
    least, median, most = seen.gpu.sm_mhz
    if median < 0.75 * most:
        return _suspect("V3", f"the median clock is {median} MHz, the highest seen {most} MHz, the lowest {least} MHz")
    return None


def alone(seen: Observation) -> Reason | None:
    """V4: nothing else ran: no process on the GPU, at most 5 % of the host, nothing stolen, nothing held back."""
    if seen.gpu is not None and seen.gpu.other_processes:
        return _invalid("V4", f"{seen.gpu.other_processes} other processes were on the GPU")
    worth = _invalid if seen.event is None else _suspect  # a busy host disturbs a GPU less than a CPU
    elsewhere, stolen, held = (
        seen.host.busy_elsewhere or 0.0,
        seen.host.steal or 0.0,
        seen.host.throttled_seconds or 0.0,
    )
    if max(elsewhere, stolen) > 0.25:
        return worth("V4", f"others took {elsewhere:.0%} of the CPUs' time, other machines {stolen:.0%}")
    if max(elsewhere, stolen) > 0.05:
        return _suspect("V4", f"others took {elsewhere:.0%} of the CPUs' time, other machines {stolen:.0%}")
    if held > 0.01 * seen.wall.sum() / 1e3:
        return _suspect("V4", f"the control group was held back for {held:.2f} s")
    return None


def steady(seen: Observation) -> Reason | None:
    """V5: the last quarter's median differs from the first's by at most 2 %."""
    change = drift(seen.milliseconds)
    if change is not None and abs(change) > 0.02:
        return _suspect("V5", f"the last quarter of the passes took {change:+.1%} of the first's time")
    return None


def alike(seen: Observation) -> Reason | None:
    """V6: the 90th percentile is at most 1.5 times the 10th."""
    ratio = spread(seen.milliseconds)
    if ratio is not None and ratio > 1.5:
        return _suspect("V6", f"the 90th percentile is {ratio:.2f} times the 10th: passes of two kinds, or noise")
    return None


def computed(seen: Observation) -> Reason | None:
    """V7: maps are finite, differ between images, are not constant, and are those of the plain module."""
    maps, reference = seen.maps, seen.reference
    if not np.isfinite(maps).all():
        return _invalid("V7", "a map has values that are not finite")
    if (maps.max((1, 2)) == maps.min((1, 2))).any():
        return _invalid("V7", "a map is constant")
    if len(np.unique(maps.reshape(len(maps), -1), axis=0)) < len(maps):
        return _invalid("V7", "different images have the same map: a result of before is returned")
    if maps.shape != reference.shape:
        return _invalid("V7", f"maps are {maps.shape[1:]}, the plain module's {reference.shape[1:]}")
    extent = float(np.ptp(reference))
    if not extent > 0:  # of a reference that is not finite, too
        return _invalid("V7", "the plain module's maps are constant or not finite")
    error = float(np.abs(maps - reference).max()) / extent
    if error > _TOLERANCE[seen.setting.precision]:
        return _invalid("V7", f"maps differ from the plain module's by {error:.2g} of their range")
    return None


def varied(seen: Observation) -> Reason | None:
    """V8: images are neither all zero nor all the same, which a GPU computes faster."""
    if not seen.inputs.any():
        return _invalid("V8", "all images are zero")
    if len(seen.inputs) > 1 and all(np.array_equal(seen.inputs[0], other) for other in seen.inputs[1:]):
        return _invalid("V8", "all images are the same")
    return None


def enough(seen: Observation) -> Reason | None:
    """V9: as many passes as the protocol asks for."""
    if len(seen.wall) < seen.wanted:
        return _suspect("V9", f"preliminary: {len(seen.wall)} of {seen.wanted:,} passes")
    return None


def counted(seen: Observation) -> Reason | None:
    """V10: FLOPs were counted, and are those of the paper where they are known."""
    flops = seen.subject.flops
    if not flops:
        return _invalid("V10", "no floating-point operation was counted")
    known = FLOPS.get(seen.subject.method)
    plain = all("padding" not in deviation for deviation in seen.subject.deviations)
    if known and plain and seen.setting.input_size == (256, 256) and abs(flops - known) > 1e6:
        return _invalid("V10", f"{flops / 1e9:.3f} GFLOP, known are {known / 1e9:.3f}")
    return None


def on_device(seen: Observation) -> Reason | None:
    """V12: all of the module lies on the GPU."""
    if seen.on_cpu:
        return _invalid("V12", f"{len(seen.on_cpu)} tensors lie on the CPU, such as {seen.on_cpu[0]}")
    return None


def precise(seen: Observation) -> Reason | None:
    """V13: the networks are in the precision of the row."""
    wanted = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}[seen.setting.precision]
    if seen.precisions and seen.precisions != {wanted}:
        return _invalid("V13", f"the networks are {', '.join(sorted(seen.precisions))}, not {wanted}")
    return None


def measurable(seen: Observation) -> Reason | None:
    """V14: the clock runs forwards, and a pass is at least a hundred of its steps and 50 µs by events."""
    least = float(min(seen.wall.min(), seen.milliseconds.min()))
    if least <= 0:
        return _invalid("V14", f"a pass took {least:g} ms: the clock went backwards")
    if seen.resolution_ns > 0.01 * least * 1e6:
        return _invalid("V14", f"the clock's step of {seen.resolution_ns:g} ns is over 1 % of a pass")
    if seen.event is not None and least < 0.05:
        return _invalid("V14", f"a pass of {1e3 * least:.1f} µs is too short for events")
    return None


def compiled_before(seen: Observation) -> Reason | None:
    """V15: nothing was compiled while it was timed."""
    if seen.recompiled:
        return _invalid("V15", f"{seen.recompiled} compilations while it was timed")
    return None


def not_deterministic(seen: Observation) -> Reason | None:
    """D: deterministic algorithms were not demanded; on a GPU they replace an interpolation by some 35 kernels."""
    if seen.setting.deterministic:
        return _invalid("D", "deterministic algorithms were demanded")
    return None


def compared(seen: Observation) -> Reason | None:
    """E: what is not the plain float32 module was compared with it on the scenario's test images."""
    if seen.not_compared:
        return _suspect("E", f"how exact it is, is not known: {seen.not_compared.splitlines()[0]}")
    return None


CHECKS: tuple[Check, ...] = (
    synchronised,
    possible,
    not_throttled,
    alone,
    steady,
    alike,
    computed,
    varied,
    enough,
    counted,
    on_device,
    precise,
    measurable,
    compiled_before,
    not_deterministic,
    compared,
)


def _names(throttled: dict[str, float]) -> str:
    return ", ".join(sorted(throttled))
