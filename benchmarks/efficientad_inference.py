"""Inference of EfficientAD by every way that there is, on one fitted detector, in turn within one process.

In each round every variant maps one image, in an order drawn anew, so that what else the machine does touches all
alike; compared are times of the same round. CPU time, of all threads, is what a shared machine disturbs least. All but
anomalib's model, whose maps differ at the border by design, are compared with the plain module on the test images.

    bench run --methods efficientad_s --datasets demo/gravel --keep-models --out runs/fast
    bench export runs/fast --format openvino --precision int8 --allow-flips
    pip install 'anomalib>=2.7' 'anomaly-bench[export,openvino]'
    python -m benchmarks.efficientad_inference runs/fast/cells/efficientad_s-* --threads 2
"""

import argparse
import importlib.util
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.artefacts.exporting import scenario_of
from bench.artefacts.parity import compare_on
from bench.artefacts.running import Run, predict_by
from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache, default_cache_directory
from bench.datasets.images import decode_images
from bench.errors import user_errors
from bench.models import load_detector
from bench.option_types import default_data_root
from bench.scoring import read_and_check
from bench.timing.job import Setup
from bench.timing.protocols import timing_protocol
from bench.timing.subject import prepare
from methods.efficientad.networks import EfficientAdNetwork
from methods.from_anomalib.models import anomalib_models
from results.migrations import load_record
from results.parity import Parity
from results.record import ArtefactPrecision
from results.store import RECORD_FILE
from results.timing_record import Backend

PLAIN = "contiguous, fp32"
SETUPS: tuple[tuple[Backend, ArtefactPrecision, bool], ...] = (
    ("eager", "fp32", False),
    ("eager", "fp32", True),
    ("onnxruntime", "fp32", False),
    ("openvino", "fp32", False),
    ("eager", "bf16", False),
    ("eager", "bf16", True),
    ("openvino", "bf16", False),
    ("openvino", "int8", False),
)


def contiguous(model: Path) -> Run:
    """The networks in the memory format and with the convolutions that PyTorch takes by itself."""
    detector = load_detector(model)
    network = detector.build_module(detector.config, {}).eval().requires_grad_(False)
    assert isinstance(network, EfficientAdNetwork)
    network.load_state_dict(detector.module().state_dict())
    nn.utils.convert_conv2d_weight_memory_format(network, torch.contiguous_format)
    network.prepare = lambda images: network.normalise(images).contiguous()  # type: ignore[method-assign]
    return network


def anomalib(model: Path) -> Run:
    """anomalib's model with the same values, on images as it takes them."""
    anomalib_models()  # imports it, with the warnings of its imports kept quiet
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel, EfficientAdModelSize  # type: ignore[import-not-found]

    ours = load_detector(model).module()
    assert isinstance(ours, EfficientAdNetwork)
    size = "S" if ours.teacher[0].out_channels == 128 else "M"
    theirs = EfficientAdModel(384, EfficientAdModelSize[size], padding=ours.padding).eval()
    pairs: tuple[tuple[nn.Module, nn.Module], ...] = (
        (theirs.teacher, ours.teacher),
        (theirs.student, ours.student),
        (theirs.ae, ours.autoencoder),
    )
    for target, source in pairs:
        layers = [[one for one in net.modules() if isinstance(one, nn.Conv2d)] for net in (target, source)]
        for one, other in zip(*layers, strict=True):
            one.load_state_dict(other.state_dict())
    theirs.mean_std["mean"].data.copy_(ours.mean)
    theirs.mean_std["std"].data.copy_(ours.std)
    for row, name in enumerate(("st", "ae")):
        for column, level in enumerate("ab"):
            theirs.quantiles[f"q{level}_{name}"].data.copy_(ours.quantiles[row, column])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        predicted: Any = theirs(images.float() / 255)
        return predicted.anomaly_map[:, 0], predicted.pred_score

    return run


def runs(model: Path, threads: int) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Every variant by name; making one fails where this machine lacks something."""
    yield PLAIN, lambda: contiguous(model)
    yield "anomalib, fp32", lambda: anomalib(model)
    for backend, precision, fused in SETUPS:
        setup = Setup(
            protocol="rigorous",
            mode="request",
            batch=1,
            precision=precision,
            backend=backend,
            fused=fused,
            device="cpu",
            threads=threads,
        )
        name = "default" if backend == "eager" else backend
        yield (
            f"{name}{' fused' if fused else ''}, {precision}",
            lambda setup=setup: prepare(model, setup, timing_protocol("rigorous").on("cpu")).runner.run,
        )


def time_in_turn(variants: dict[str, Run], images: Tensor, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds by the wall's clock and of all threads, of each variant in each round, after two of warm-up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    draw = random.Random(0)
    for number in range(rounds + 2):
        image = images[number % len(images)][None]
        for name in draw.sample(list(variants), len(variants)):
            start, cpu = time.perf_counter(), time.process_time()
            variants[name](image)
            spent = 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - cpu)
            if number >= 2:
                times[name].append(spent)
    return times


def line(name: str, times: dict[str, list[tuple[float, float]]], parity: Parity | None) -> str:
    """A row: medians, and medians of the ratios to others of the same round."""
    own = times[name]
    ratios = [
        f"{statistics.median(other[1] / mine[1] for other, mine in zip(times[base], own, strict=True)):.2f}"
        if base in times
        else "–"
        for base in (PLAIN, "anomalib, fp32")
    ]
    wall, cpu = (statistics.median(spent) for spent in zip(*own, strict=True))
    exact = ["–"] * 4
    if parity is not None:
        changes = [f"{100 * plain:.2f} → {100 * other:.2f}" for plain, other in list(parity.metrics.values())[:2]]
        exact = [f"{parity.map_error:.1e}", f"{len(parity.flipped)} of {parity.images}", *changes]
    return f"| {name} | {wall:.0f} | {cpu:.0f} | {' | '.join([*ratios, *exact])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the cell that has kept the detector")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    arguments = parser.parse_args()
    model, threads = arguments.model, arguments.threads
    torch.set_num_threads(threads)
    cache, record = Cache(default_cache_directory()), load_record(model / RECORD_FILE)
    scenario = scenario_of(record, arguments.data_root, cache)
    paths = [image.path for image in scenario.test]
    test = decode_images(paths, (256, 256), cache, bits=bit_depth(scenario))
    truth = read_and_check(scenario, test.sizes)
    with torch.inference_mode():
        variants: dict[str, Run] = {}
        for name, make in runs(model, threads):
            if name.startswith("anomalib") and not importlib.util.find_spec("anomalib"):
                print(f"{name}: not installed")
                continue
            try:
                variants[name] = make()
            except user_errors() as error:
                print(f"{name}: not measured: {str(error).splitlines()[0]}")
        times = time_in_turn(variants, test.pixels, arguments.rounds)
        maps = {
            name: predict_by(run, test.pixels, 1, scenario.names)
            for name, run in variants.items()
            if not name.startswith("anomalib")
        }
    parities = {name: compare_on(maps[PLAIN], own, truth, threads) for name, own in maps.items() if name != PLAIN}
    print(
        f"{record.title}, {scenario.id}, {threads} threads, load {os.getloadavg()[0]:.1f}, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, {arguments.rounds} rounds\n"
    )
    print("| variant | wall ms | CPU ms | × contiguous | × anomalib | map error | flipped | image AU-ROC | AU-PRO |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in variants:
        print(line(name, times, parities.get(name)))


if __name__ == "__main__":
    main()
