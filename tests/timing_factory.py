"""Timing records as processes would write them: made up, of five GPUs and a processor."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from results.timing_record import (
    Distribution,
    Gpu,
    HostState,
    Line,
    Machine,
    Memory,
    Reason,
    Sampling,
    Setting,
    Subject,
    TimingRecord,
    Verdict,
)
from results.timing_store import append_timing

# Milliseconds on the first GPU, millions of parameters, of values in a memory bank, GFLOP.
METHODS = {
    "efficientad_s": ("EfficientAD-S", 2.2, 8.058, 0, 75.895),
    "efficientad_m": ("EfficientAD-M", 4.5, 20.738, 0, 235.411),
    "patchcore": ("PatchCore", 32.0, 82.87, 3.2, 41.2),
    "ast": ("AST", 53.0, 154.4, 0, 198.6),
}
GPUS = {
    "NVIDIA RTX A6000": 1.0,
    "NVIDIA RTX A5000": 1.2,
    "Tesla V100": 1.6,
    "NVIDIA GeForce RTX 3080": 1.5,
    "NVIDIA GeForce RTX 2080 Ti": 1.9,
}
START = datetime(2026, 11, 1, tzinfo=UTC)


def distribution(mean: float) -> Distribution:
    return Distribution(
        mean=mean, deviation=0.01 * mean, least=0.98 * mean, greatest=1.1 * mean, p50=mean, p90=1.01 * mean,
        p95=1.02 * mean, p99=1.05 * mean, p999=None, p90_bound=1.02 * mean, p99_bound=1.06 * mean, outliers=0,
    )  # fmt: skip


def machine(gpu: str | None, number: int) -> Machine:
    return Machine(
        id=f"{number:x}" * 12,
        cpu="Some Processor" if gpu is None else "Another_Processor & Co",
        cores=8,
        memory_bytes=2**36,
        platform="Linux",
        python="3.12.0",
        packages={"torch": "2.13.0"},
        git_commit="0123456789ab",
        git_dirty=False,
        gpu=None if gpu is None else Gpu(name=gpu, power_limit_watts=300.0, driver="570.1", pcie="4 x16"),
    )


def make_subject(method: str) -> Subject:
    title, _, parameters, bank, gflop = METHODS[method]
    return Subject(
        method=method,
        title=title,
        config={},
        deviations=["backbone x_y"] if method == "patchcore" else [],
        fit_key="f" * 64,
        model_sha256="a" * 64,
        scenario="visa/cashew",
        train_images=450,
        training_steps=1,
        train_scale=1.0,
        memory_bank=round(1e6 * bank),
        parameters=round(1e6 * parameters),
        flops=round(1e9 * gflop),
        search_flops=5_000_000_000 if bank else 0,
    )


def make_sampling(process: int, mean: float) -> Sampling:
    return Sampling(
        warm_up=1000,
        warm_up_seconds=2.0,
        count=1000,
        wanted=1000,
        seconds=mean,
        stop_reason="count",
        process=process,
        processes=3,
        order=process,
        cold_start_ms=900.0,
        load_ms=300.0,
    )


def make_timing(
    method: str = "efficientad_s",
    gpu: str | None = "NVIDIA RTX A6000",
    *,
    batch: int = 1,
    process: int = 0,
    number: int = 1,
    session: int = 0,
    reasons: tuple[Reason, ...] = (),
    line: Line | None = None,
    **setting: Any,
) -> TimingRecord:
    """A record of one process; its times follow from method, GPU, batch and process."""
    milliseconds = METHODS[method][1]
    factor = GPUS[gpu] if gpu is not None else 200.0
    mean = milliseconds * factor * (1 if batch == 1 else 0.7 * batch) * (1 + 0.004 * process)
    created = START + timedelta(days=session, minutes=process)
    statuses = [reason.status for reason in reasons]
    return TimingRecord(
        session=f"session {session} of {number}",
        created=created,
        command="bench time",
        subject=make_subject(method),
        setting=Setting(
            **{
                "protocol": "paper",
                "mode": "request" if line is None else "line",
                "batch": batch,
                "input_size": (256, 256),
                "precision": "fp16" if gpu else "fp32",
                "backend": "eager",
                "region": "from images in host memory to maps and scores on the device",
                "input_dtype": "float16",
                "tf32": False,
                "cudnn_benchmark": False,
                "deterministic": False,
                "pinned": False,
                "non_blocking": False,
                "clock": "cuda-events" if gpu else "host",
                "threads": 8,
                **setting,
            }
        ),
        machine=machine(gpu, number),
        host_state=HostState(load=0.1, steal=0.0, throttled_seconds=0.0, busy_elsewhere=0.0, garbage_collector=False),
        sampling=make_sampling(process, mean),
        wall=distribution(mean * 1.01),
        event=distribution(mean) if gpu else None,
        cpu=distribution(mean * (1 if gpu else 8)),
        throughput=batch / mean * 1e3,
        line=line,
        memory=Memory(reserved_bytes=100_000_000 if gpu else None, process_bytes=2**30),
        output_sha256="0" * 64,
        verdict=Verdict(
            status="INVALID" if "INVALID" in statuses else "SUSPECT" if statuses else "VALID", reasons=list(reasons)
        ),
        samples="samples.npz",
    )


def change(record: TimingRecord, **changes: Any) -> TimingRecord:
    """The same record with some fields replaced; a dictionary replaces fields of a part: ``subject={"config": {}}``."""
    document = record.model_dump()
    for name, value in changes.items():
        document[name] = {**document[name], **value} if isinstance(value, dict) else value
    return TimingRecord.model_validate(document)


def write_machines(folder: Path, *, batches: tuple[int, ...] = (1, 16)) -> list[Path]:
    """The files of five machines, of three processes per row each."""
    files = []
    for number, gpu in enumerate(GPUS, start=1):
        file = folder / f"machine-{number}.jsonl"
        for process in range(3):
            for method in METHODS:
                for batch in batches:
                    append_timing(file, make_timing(method, gpu, batch=batch, process=process, number=number))
        files.append(file)
    return files
