"""From timing records to rows: the processes of one session that timed the same thing on the same device."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal

from scipy.special import stdtrit

from results.timing_record import Distribution, Reason, Setting, Status, Subject, TimingRecord, Verdict

MIN_PROCESSES = 3
"""With fewer a row is preliminary."""
SAME = 0.01
"""Rows whose ratio is within so much of 1 are as fast as each other."""
TO_DEVICE = "transfer to device"
"""What records call that part of a pass."""
LAUNCH_BOUND = 0.8
_CONFIDENCE = 0.95
_PRODUCT = (0.5, 16.0)
_BATCHES = (1, 16)
_WORST: tuple[Status, ...] = ("VALID", "SUSPECT", "INVALID")
_PACKAGE = "anomaly-bench"


@dataclass(frozen=True, order=True)
class Device:
    """What rows of one column were timed on; two machines with the same GPU are two devices.

    Attributes:
        name: Of the GPU, or of the processor where that was timed.
        part: MIG profile, ``MPS`` or ``vGPU``; empty for a whole GPU.
        power_limit_watts: Of a GPU, rounded; 0 if unknown.
        threads: Of a processor; 0 for a GPU.
        machine: Id of the machine.
    """

    name: str
    part: str
    power_limit_watts: int
    threads: int
    machine: str

    @property
    def is_gpu(self) -> bool:
        """Whether it is a GPU."""
        return not self.threads

    @property
    def kind(self) -> "Device":
        """The same hardware on any machine."""
        return replace(self, machine="")

    @classmethod
    def of(cls, record: TimingRecord) -> "Device":
        """What ``record`` was timed on."""
        gpu, machine = record.machine.gpu, record.machine
        if gpu is None:
            return cls(machine.cpu, "", 0, record.setting.threads, machine.id)
        return cls(gpu.name, gpu.part, round(gpu.power_limit_watts or 0), 0, machine.id)


@dataclass(frozen=True)
class Estimate:
    """A value and how far it is off.

    Attributes:
        value: Mean over processes, or median over machines.
        low: Where its interval begins; ``None`` where one process gives none.
        high: Where it ends.
        deviation: Standard deviation over processes, where the interval is of this length to both sides; ``None`` for
            a confidence interval or a range.
    """

    value: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class TimingRow:
    """One detector in one setting on one device.

    Attributes:
        device: Where.
        records: A process of the same session each, by its index.
        verdict: The worst of theirs, and what only all of them together show.
    """

    device: Device
    records: tuple[TimingRecord, ...]
    verdict: Verdict

    @property
    def newest(self) -> TimingRecord:
        """The last process that ran."""
        return max(self.records, key=lambda record: record.created)

    @property
    def subject(self) -> Subject:
        """The detector."""
        return self.newest.subject

    @property
    def setting(self) -> Setting:
        """How it was run."""
        return self.newest.setting

    @property
    def identity(self) -> str:
        """Equal for two rows if and only if they differ in nothing but device and batch size."""
        return _identity(self.newest, batch=0)

    @property
    def code(self) -> str:
        """What made it: commit, with a plus for changes, or version of the package."""
        machine = self.newest.machine
        if machine.git_commit is None:
            return machine.packages.get(_PACKAGE, "unknown")
        return machine.git_commit[:7] + ("+" if machine.git_dirty else "")

    @property
    def latency(self) -> Estimate:
        """Milliseconds per pass by the protocol's clock.

        The rigorous protocol's is the mean of the processes' medians with its 95 % interval; the others' the mean of
        their means, with standard deviation, as papers print it.
        """
        passes = [protocol_clock(record) for record in self.records]
        if self.setting.protocol == "rigorous":
            return with_interval([one.p50 for one in passes])
        return with_deviation([one.mean for one in passes])

    @property
    def throughput(self) -> Estimate:
        """Images per second."""
        values = [record.throughput for record in self.records]
        return with_interval(values) if self.setting.protocol == "rigorous" else with_deviation(values)

    @property
    def median(self) -> Estimate:
        """Milliseconds per pass by the protocol's clock: mean of the processes' medians, whatever the protocol."""
        return with_interval([protocol_clock(record).p50 for record in self.records])

    @property
    def cpu(self) -> Estimate:
        """Milliseconds of all threads per pass: mean of the processes' medians."""
        return with_interval([record.cpu.p50 for record in self.records])

    def bound(self, name: Literal["p90_bound", "p99_bound"]) -> float | None:
        """The largest of the processes' bounds of a percentile; ``None`` if one of them has too few passes for it."""
        bounds = [getattr(protocol_clock(record), name) for record in self.records]
        return None if None in bounds else max(bounds)

    @property
    def stages(self) -> dict[str, Estimate]:
        """Milliseconds of the parts of a pass, in their order: mean of the processes' medians; empty if not timed."""
        medians: dict[str, list[float]] = {}
        for record in self.records:
            for stage in record.stages.parts if record.stages is not None else ():
                medians.setdefault(stage.name, []).append(stage.p50)
        return {name: with_interval(values) for name, values in medians.items()}

    def stage_tail(self, name: str) -> float | None:
        """The largest of the processes' 99th percentiles of a part; ``None`` if one of them has too few passes."""
        staged = [record.stages for record in self.records if record.stages is not None]
        tails = [stage.p99 for stages in staged for stage in stages.parts if stage.name == name]
        return max((tail for tail in tails if tail is not None), default=None) if None not in tails else None

    @property
    def energy(self) -> Estimate | None:
        """Millijoules of the GPU's board per image, mean over processes; ``None`` if not all know theirs."""
        known = [value for record in self.records if (value := record.energy_mj_per_image) is not None]
        return with_interval(known) if len(known) == len(self.records) else None

    @property
    def after_idle(self) -> dict[float, list[float]]:
        """Milliseconds of the first passes after a rest, of all processes, by the seconds of rest."""
        passes: dict[float, list[float]] = {}
        for record in self.records:
            if record.after_idle is not None:
                passes.setdefault(record.after_idle.seconds, []).extend(record.after_idle.milliseconds)
        return passes

    @property
    def reserved_bytes(self) -> float | None:
        """Peak memory on the device, mean over processes; ``None`` if not all know theirs."""
        peaks = [record.memory.reserved_bytes for record in self.records]
        known = [peak for peak in peaks if peak is not None]
        return fmean(known) if len(known) == len(peaks) else None


@dataclass(frozen=True)
class TimingRows:
    """The rows that some records make.

    Attributes:
        rows: That are shown, VALID or SUSPECT.
        invalid: Those that are no measurement, and that nothing newer has replaced.
        left_out: One sentence per reason why records are in no row.
    """

    rows: tuple[TimingRow, ...]
    invalid: tuple[TimingRow, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """How long one row takes in terms of another.

    Attributes:
        ratio: Geometric mean of the ratios of the processes' medians; ``None`` without processes that form pairs.
        low: Where its 95 % interval begins; ``None`` with fewer than two pairs.
        high: Where it ends.
        word: ``faster`` or ``slower`` if the interval excludes 1, ``same`` if it lies within 1 % of 1, else
            ``indistinguishable``.
    """

    ratio: float | None
    low: float | None
    high: float | None
    word: Literal["faster", "slower", "same", "indistinguishable"]


@dataclass(frozen=True)
class HostShare:
    """What the host adds to what the device takes, by a row of requests and one of the device alone.

    Attributes:
        request: One pass at a time, from host memory.
        device: Replays of the same passes as a CUDA graph, without transfers.
    """

    request: TimingRow
    device: TimingRow

    @property
    def wall_ms(self) -> float:
        """A request by the host's clock: mean of the processes' medians, likewise the others."""
        return fmean(record.wall.p50 for record in self.request.records)

    @property
    def device_ms(self) -> float:
        """By events around the replay."""
        return self.device.median.value

    @property
    def transfer_ms(self) -> float | None:
        """Of the images to the device; ``None`` where the parts of a pass were not timed."""
        stage = self.request.stages.get(TO_DEVICE)
        return None if stage is None else stage.value

    @property
    def overhead_ms(self) -> float | None:
        """What a request takes beyond device and transfer; ``None`` without the latter."""
        return None if self.transfer_ms is None else self.wall_ms - self.device_ms - self.transfer_ms

    @property
    def enqueue_ms(self) -> float | None:
        """Until the host had handed everything over; ``None`` where a process does not know it."""
        known = [record.enqueue.p50 for record in self.request.records if record.enqueue is not None]
        return fmean(known) if len(known) == len(self.request.records) else None

    @property
    def launch_bound(self) -> bool | None:
        """Whether handing over takes over 80 % of what the device takes (as NVIDIA's trtexec has it)."""
        return None if self.enqueue_ms is None else self.enqueue_ms > LAUNCH_BOUND * self.device_ms


def host_shares(rows: Iterable[TimingRow]) -> list[HostShare]:
    """Every row of requests on a GPU of which there is one of the device alone, that else was run alike."""
    modes: dict[str, dict[str, TimingRow]] = {}
    for row in rows:
        alike = _row_key(row.newest, mode="", region="", pinned=False, non_blocking=False)
        modes.setdefault(alike, {})[row.setting.mode] = row
    return [HostShare(own["request"], own["device"]) for own in modes.values() if {"request", "device"} <= own.keys()]


def make_rows(records: Iterable[TimingRecord]) -> TimingRows:
    """Group records to rows: of several sessions of the same row the newest that is VALID counts, else SUSPECT."""
    by_key: dict[str, dict[str, list[TimingRecord]]] = {}
    for record in sorted(records, key=lambda record: (record.created, record.sampling.process)):
        by_key.setdefault(_row_key(record), {}).setdefault(record.session, []).append(record)
    shown: dict[str, TimingRow] = {}
    invalid: list[TimingRow] = []
    older = newer = 0
    for key, sessions in by_key.items():
        rows = [_session_row(own) for own in sessions.values()]
        rows.sort(key=lambda row: row.newest.created, reverse=True)
        chosen = min(rows, key=lambda row: _WORST.index(row.verdict.status))
        position = rows.index(chosen)
        if chosen.verdict.status == "INVALID":
            invalid.append(chosen)
        else:
            shown[key] = chosen
            invalid += [row for row in rows[:position] if row.verdict.status == "INVALID"]
            newer += sum(row.verdict.status == "SUSPECT" for row in rows[:position])
        older += len(rows) - position - 1
    left_out = []
    if older:
        left_out.append(f"Left out: older timings of rows that were timed again ({older}).")
    if newer:
        left_out.append(f"Left out: SUSPECT timings of rows of which an older one is VALID ({newer}).")
    return TimingRows(tuple(sorted(_checked(shown), key=_order)), tuple(sorted(invalid, key=_order)), tuple(left_out))


def compare_rows(row: TimingRow, other: TimingRow) -> Comparison:
    """Compare the times of two rows by pairs of processes that ran in the same round of the same session."""
    theirs = {(record.session, record.sampling.process): protocol_clock(record).p50 for record in other.records}
    logarithms = [
        math.log(protocol_clock(record).p50 / theirs[place])
        for record in row.records
        if row.device == other.device and (place := (record.session, record.sampling.process)) in theirs
    ]
    if not logarithms:
        return Comparison(None, None, None, "indistinguishable")
    ratio = with_interval(logarithms)
    if ratio.low is None or ratio.high is None:
        return Comparison(math.exp(ratio.value), None, None, "indistinguishable")
    low, high = math.exp(ratio.low), math.exp(ratio.high)
    word: Literal["faster", "slower", "same", "indistinguishable"] = "indistinguishable"
    if high < 1 or low > 1:
        word = "faster" if high < 1 else "slower"
    elif low >= 1 - SAME and high <= 1 + SAME:
        word = "same"
    return Comparison(math.exp(ratio.value), low, high, word)


def protocol_clock(record: TimingRecord) -> Distribution:
    """The distribution by the clock that the protocol goes by."""
    return record.event if record.setting.clock == "cuda-events" and record.event is not None else record.wall


def with_interval(values: Sequence[float]) -> Estimate:
    """The mean with its 95 % interval of Student's t; without an interval for one value."""
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean)
    half = float(stdtrit(len(values) - 1, (1 + _CONFIDENCE) / 2)) * stdev(values) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


def with_deviation(values: Sequence[float]) -> Estimate:
    """The mean with its sample standard deviation; without one for one value."""
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean)
    return Estimate(mean, mean - stdev(values), mean + stdev(values), stdev(values))


def _row_key(record: TimingRecord, **other_setting: object) -> str:
    """Equal for two records if and only if they belong to the same row, with some of its setting replaced."""
    return json.dumps([_identity(record, **other_setting), vars(Device.of(record))])


def _identity(record: TimingRecord, **other_setting: object) -> str:
    subject, setting, line = record.subject, record.setting, record.line
    detector = subject.model_dump(mode="json", include={"method", "config", "deviations", "weights", "memory_bank"})
    # Threads are part of the device where that is a processor, and nothing to speak of else.
    run = {**setting.model_dump(mode="json", exclude={"threads"}), **other_setting}
    rate = (line.rate, line.arrivals, line.deadline_ms) if line is not None else None
    return json.dumps([detector, run, rate], sort_keys=True)


def _session_row(records: list[TimingRecord]) -> TimingRow:
    # Of a process that ran again, for example after it was killed, the newest counts.
    processes = {record.sampling.process: record for record in records}
    own = tuple(processes[process] for process in sorted(processes))
    reasons = [*_shared_reasons(own), *_preliminary(own)]
    return TimingRow(Device.of(own[0]), own, _verdict(reasons, [record.verdict.status for record in own]))


def _verdict(reasons: Sequence[Reason], more: Sequence[Status] = ()) -> Verdict:
    statuses = [*more, *(reason.status for reason in reasons), "VALID"]
    return Verdict(status=max(statuses, key=_WORST.index), reasons=list(reasons))


def _shared_reasons(records: Sequence[TimingRecord]) -> list[Reason]:
    """A reason per check, the first process's words; V9 is decided over all of them."""
    by_check: dict[tuple[str, str], list[Reason]] = {}
    for record in records:
        for reason in {(reason.check, reason.status): reason for reason in record.verdict.reasons}.values():
            by_check.setdefault((reason.check, reason.status), []).append(reason)
    shared = []
    for (check, _), own in sorted(by_check.items()):
        if check != "V9":
            share = f" (in {len(own)} of {len(records)} processes)" if len(records) > 1 else ""
            shared.append(own[0].model_copy(update={"text": own[0].text + share}))
    return shared


def _preliminary(records: Sequence[TimingRecord]) -> list[Reason]:
    """V9: too few processes, or too few passes."""
    texts = []
    if len(records) < MIN_PROCESSES:
        texts.append(f"{len(records)} of at least {MIN_PROCESSES} processes")
    least = min(records, key=lambda record: record.sampling.count / record.sampling.wanted)
    if least.sampling.count < least.sampling.wanted:
        texts.append(f"{least.sampling.count} of {least.sampling.wanted} passes")
    return [Reason(check="V9", status="SUSPECT", text=f"preliminary: {', '.join(texts)}")] if texts else []


def _checked(rows: dict[str, TimingRow]) -> list[TimingRow]:
    """V11: latency at batch size 1 and throughput at 16 have to fit together."""
    checked = []
    for row in rows.values():
        single, batched = (rows.get(_row_key(row.newest, batch=batch)) for batch in _BATCHES)
        if row.setting.mode in ("request", "device") and row in (single, batched) and single and batched:
            product = batched.throughput.value * single.latency.value / 1000
            if not _PRODUCT[0] <= product <= _PRODUCT[1]:
                shorter = ": a pass of 16 images is shorter than one of 1" if product > _PRODUCT[1] else ""
                text = f"throughput × latency is {product:.2g}, allowed: 0.5 to 16{shorter}"
                reasons = [*row.verdict.reasons, Reason(check="V11", status="SUSPECT", text=text)]
                row = replace(row, verdict=_verdict(reasons, [row.verdict.status]))
        checked.append(row)
    return checked


def _order(row: TimingRow) -> tuple[object, ...]:
    subject, setting = row.subject, row.setting
    device = (not row.device.is_gpu, row.device)
    setup = (setting.protocol, setting.mode, setting.backend, setting.precision, setting.input_size, setting.batch)
    return subject.title.casefold(), subject.method, _row_key(row.newest, batch=0), *device, *setup, setting.batch
