"""Every verdict: a fake that must be caught, and a clean measurement that must pass."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.timing.verdicts import CHECKS, Observation, judge
from results.published import gpu_peak
from results.timing_record import GpuState, HostState, Setting, Subject

GENERATOR = np.random.default_rng(0)
SUBJECT = Subject(
    method="efficientad_s",
    title="EfficientAD-S",
    config={},
    fit_key="0" * 64,
    model_sha256="0" * 64,
    scenario="demo/gravel",
    train_images=36,
    training_steps=1,
    train_scale=1e-9,
    memory_bank=0,
    parameters=8_058_368,
    flops=75_895_000_000,
)
SETTING = Setting(
    protocol="paper",
    mode="request",
    batch=1,
    input_size=(256, 256),
    precision="fp16",
    backend="eager",
    region="from images in host memory to maps and scores on the device",
    input_dtype="float16",
    tf32=False,
    cudnn_benchmark=False,
    deterministic=False,
    pinned=False,
    non_blocking=False,
    clock="cuda-events",
    threads=8,
)
HOST = HostState(load=0.1, steal=0.0, throttled_seconds=0.0, busy_elsewhere=0.01, garbage_collector=False)
GPU = GpuState(
    samples=40,
    sm_mhz=(1960, 1980, 1980),
    memory_mhz=2619,
    celsius=(40, 45, 46),
    watts=300.0,
    throttled={},
    other_processes=0,
    clock_policy="floating",
)


def passes(milliseconds: float, count: int = 1000) -> Any:
    return milliseconds * (1 + 0.002 * GENERATOR.standard_normal(count))


MAPS = GENERATOR.random((4, 32, 32)).astype(np.float32)
CLEAN = Observation(
    subject=SUBJECT,
    setting=SETTING,
    wall=passes(0.82),
    event=passes(0.80),
    wanted=1000,
    resolution_ns=30.0,
    host=HOST,
    gpu=GPU,
    peak=gpu_peak("NVIDIA H100 80GB HBM3"),
    maps=MAPS,
    reference=MAPS + np.float32(1e-3),
    inputs=GENERATOR.random((4, 3, 8, 8)),
    precisions=frozenset({"float16"}),
)
ON_CPU = replace(
    CLEAN,
    setting=SETTING.model_copy(update={"precision": "fp32", "clock": "host"}),
    wall=passes(480.0, 200),
    event=None,
    wanted=200,
    gpu=None,
    peak=None,
    reference=MAPS,
    precisions=frozenset({"float32"}),
)


def setting(**changes: Any) -> Setting:
    return SETTING.model_copy(update=changes)


def subject(**changes: Any) -> Subject:
    return SUBJECT.model_copy(update=changes)


def gpu(**changes: Any) -> GpuState:
    return GPU.model_copy(update=changes)


def host(**changes: Any) -> HostState:
    return HOST.model_copy(update=changes)


FAKES = {
    "timer that does not wait": (replace(CLEAN, wall=passes(0.08)), "V1", "INVALID"),
    "timer that stops a little early": (replace(CLEAN, wall=passes(0.75)), "V1", "INVALID"),
    "events in another stream": (replace(CLEAN, event=passes(0.2)), "V1", "INVALID"),
    "faster than the chip": (replace(CLEAN, wall=passes(0.07), event=passes(0.065)), "V2", "INVALID"),
    "float32 faster than the chip": (
        replace(CLEAN, setting=setting(precision="fp32"), precisions=frozenset({"float32"}), reference=MAPS),
        "V2",
        "INVALID",
    ),
    "float32 faster than the chip with Winograd's convolutions": (
        replace(
            CLEAN,
            setting=setting(precision="fp32"),
            subject=subject(flops_3x3=75_000_000_000),
            wall=passes(0.45),
            event=passes(0.44),
            precisions=frozenset({"float32"}),
            reference=MAPS,
        ),
        "V2",
        "INVALID",
    ),
    "float16 faster than the chip, whatever its convolutions": (
        replace(CLEAN, subject=subject(flops_3x3=75_000_000_000), wall=passes(0.07), event=passes(0.065)),
        "V2",
        "INVALID",
    ),
    "batch faster than the chip": (replace(CLEAN, setting=setting(batch=16)), "V2", "INVALID"),
    "throttled for long": (replace(CLEAN, gpu=gpu(throttled={"software power cap": 0.4})), "V3", "INVALID"),
    "throttled at times": (replace(CLEAN, gpu=gpu(throttled={"hardware slowdown": 0.05})), "V3", "SUSPECT"),
    "held back by the power supply": (
        replace(CLEAN, gpu=gpu(throttled={"hardware power brake": 0.4})),
        "V3",
        "INVALID",
    ),
    "clock of an idle GPU": (replace(CLEAN, gpu=gpu(sm_mhz=(345, 1200, 1980))), "V3", "SUSPECT"),
    "second process on the GPU": (replace(CLEAN, gpu=gpu(other_processes=1)), "V4", "INVALID"),
    "CPU shared by halves": (replace(ON_CPU, host=host(busy_elsewhere=0.5)), "V4", "INVALID"),
    "CPU shared a little": (replace(ON_CPU, host=host(busy_elsewhere=0.1)), "V4", "SUSPECT"),
    "busy host of a GPU": (replace(CLEAN, host=host(busy_elsewhere=0.5)), "V4", "SUSPECT"),
    "time stolen by other machines": (replace(ON_CPU, host=host(steal=0.3)), "V4", "INVALID"),
    "control group held back": (replace(ON_CPU, host=host(throttled_seconds=5.0)), "V4", "SUSPECT"),
    "drift": (replace(CLEAN, event=passes(0.8) * np.linspace(1, 1.04, 1000)), "V5", "SUSPECT"),
    "drift to shorter passes": (replace(CLEAN, event=passes(0.8) * np.linspace(1, 0.96, 1000)), "V5", "SUSPECT"),
    "passes of two kinds": (replace(ON_CPU, wall=np.tile([400.0, 900.0], 100)), "V6", "SUSPECT"),
    "not a number": (replace(CLEAN, maps=np.where(MAPS > 0.5, np.nan, MAPS)), "V7", "INVALID"),
    "constant map": (replace(CLEAN, maps=np.full_like(MAPS, 0.5)), "V7", "INVALID"),
    "one map for all images": (replace(CLEAN, maps=np.stack([MAPS[0]] * 4)), "V7", "INVALID"),
    "one map for two images, not the first": (
        replace(CLEAN, maps=MAPS[[0, 1, 1, 3]], reference=MAPS[[0, 1, 1, 3]]),
        "V7",
        "INVALID",
    ),
    "nothing to compare with": (replace(CLEAN, reference=np.full_like(MAPS, np.nan)), "V7", "INVALID"),
    "constant maps to compare with": (replace(CLEAN, reference=np.full_like(MAPS, 0.5)), "V7", "INVALID"),
    "another result": (replace(CLEAN, maps=MAPS[::-1].copy()), "V7", "INVALID"),
    "float32 as exact as float16": (replace(ON_CPU, reference=MAPS + np.float32(0.01)), "V7", "INVALID"),
    "maps of another size": (replace(CLEAN, maps=MAPS[:, ::2, ::2]), "V7", "INVALID"),
    "images all zero": (replace(CLEAN, inputs=np.zeros((4, 3, 8, 8))), "V8", "INVALID"),
    "one image over and over": (replace(CLEAN, inputs=np.ones((4, 3, 8, 8))), "V8", "INVALID"),
    "too few passes": (replace(CLEAN, wanted=1001), "V9", "SUSPECT"),
    "nothing counted": (replace(CLEAN, subject=subject(flops=0)), "V10", "INVALID"),
    "another network than the paper's": (replace(CLEAN, subject=subject(flops=80_000_000_000)), "V10", "INVALID"),
    "a few operations more than the paper's": (replace(CLEAN, subject=subject(flops=75_897_000_000)), "V10", "INVALID"),
    "tensor left on the CPU": (replace(CLEAN, on_cpu=["quantiles"]), "V12", "INVALID"),
    "precision that silently was another": (replace(CLEAN, precisions=frozenset({"float32"})), "V13", "INVALID"),
    "networks of two precisions": (replace(CLEAN, precisions=frozenset({"float16", "float32"})), "V13", "INVALID"),
    "clock that went backwards": (replace(CLEAN, wall=np.append(passes(0.82, 999), -0.1)), "V14", "INVALID"),
    "clock of coarse steps": (replace(CLEAN, resolution_ns=16e6), "V14", "INVALID"),
    "pass too short for events": (replace(CLEAN, wall=passes(0.032), event=passes(0.03)), "V14", "INVALID"),
    "compiled while it was timed": (replace(CLEAN, recompiled=1), "V15", "INVALID"),
    "faster, and nobody knows at what price": (replace(CLEAN, not_compared="no data"), "E", "SUSPECT"),
    "deterministic algorithms": (replace(CLEAN, setting=setting(deterministic=True)), "D", "INVALID"),
}


@pytest.mark.parametrize("clean", [CLEAN, ON_CPU], ids=["GPU", "CPU"])
def test_a_clean_measurement_is_valid(clean: Observation) -> None:
    verdict = judge(clean)
    assert verdict.reasons == []
    assert verdict.status == "VALID"


@pytest.mark.parametrize("name", FAKES)
def test_a_fake_is_caught(name: str) -> None:
    seen, check, status = FAKES[name]
    verdict = judge(seen)
    named = {reason.check: reason for reason in verdict.reasons}
    assert check in named, verdict
    assert named[check].status == status
    assert verdict.status == ("INVALID" if "INVALID" in {one.status for one in verdict.reasons} else "SUSPECT")


def test_every_check_has_a_fake() -> None:
    caught = {check for _, check, _ in FAKES.values()}
    assert caught == {(check.__doc__ or "").partition(":")[0] for check in CHECKS}


def test_a_gpu_of_no_data_sheet_is_judged_without_it() -> None:
    assert gpu_peak("NVIDIA GeForce GT 710") is None
    assert judge(replace(CLEAN, peak=None)).status == "VALID"


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 3080 Ti",
        "NVIDIA GeForce RTX 3080 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA H100 NVL",
    ],
)
def test_another_gpu_of_the_same_number_is_not_taken_for_it(name: str) -> None:
    assert gpu_peak(name) is None


@pytest.mark.parametrize(
    ("name", "gpu_of_sheet"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("Tesla V100-SXM2-32GB", "V100"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA GeForce RTX 2080 Ti", "RTX 2080 Ti"),
        ("NVIDIA GeForce RTX 3080", "RTX 3080"),
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
    ],
)
def test_gpus_are_found_by_the_names_drivers_give_them(name: str, gpu_of_sheet: str) -> None:
    peak = gpu_peak(name)
    assert peak is not None
    assert peak.gpu == gpu_of_sheet


@pytest.mark.parametrize(
    ("clean", "why"),
    [
        (replace(CLEAN, subject=subject(flops=90_000_000_000, deviations=["padding=True"])), "another network"),
        (
            replace(CLEAN, setting=setting(input_size=(512, 512)), subject=subject(flops=330_000_000_000)),
            "larger images",
        ),
        (replace(CLEAN, subject=subject(flops=75_894_972_418)), "as EfficientAD-S is counted"),
        (
            replace(CLEAN, subject=subject(method="efficientad_m", flops=235_410_604_034)),
            "as EfficientAD-M is counted",
        ),
        (
            replace(
                CLEAN,
                setting=setting(precision="fp32"),
                subject=subject(flops_3x3=75_000_000_000),
                precisions=ON_CPU.precisions,
                reference=MAPS,
            ),
            "Winograd's convolutions multiply less",
        ),
        (
            replace(CLEAN, setting=setting(precision="fp32", tf32=True), precisions=ON_CPU.precisions, reference=MAPS),
            "TF32 is that fast",
        ),
    ],
)
def test_what_only_looks_like_a_fault_is_valid(clean: Observation, why: str) -> None:
    assert judge(clean).reasons == [], why


def test_the_worst_of_several_reasons_counts() -> None:
    verdict = judge(replace(CLEAN, wanted=1001, recompiled=1, gpu=gpu(throttled={"hardware slowdown": 0.05})))
    assert [(one.check, one.status) for one in verdict.reasons] == [
        ("V3", "SUSPECT"),
        ("V9", "SUSPECT"),
        ("V15", "INVALID"),
    ]
    assert verdict.status == "INVALID"
