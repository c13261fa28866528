"""Training step of EfficientAD: the reference, the CPU's fast step and anomalib's EfficientAdModel in a plain loop.

All of an iteration is timed, interleaved in one run: augmentation where there is one, forward passes, losses, backward
pass, Adam. anomalib's own forward takes a batch of one image and one pretraining image; its networks run unpadded and
in memory format NCHW, as it builds them. Counted are the operators that compute or copy, and those at which the host
waits for the device to read a value: of the loss and its backward pass, and of one inference.

    pip install 'anomalib>=2.7'
    python -m benchmarks.efficientad_step --threads 2
"""

import argparse
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from methods.common.precision import TrainingPrecision, cpu_features, lacks_instructions
from methods.common.torchvision_import import import_torchvision
from methods.detector import FitContext, ImageSet
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import Size
from methods.efficientad.step import StepName, choose_step
from methods.efficientad.training import STEPS, Training, TrainingOptions
from methods.efficientad.winograd import take_fewer_multiplications
from methods.errors import MethodError

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 1e-5

# fmt: off
MOVES_NOTHING = frozenset({
    "alias", "as_strided", "as_strided_", "contiguous", "detach", "dropout", "empty", "empty_like",
    "empty_strided", "expand", "flatten", "mT", "narrow", "new_empty", "numpy_T", "permute", "reshape",
    "resize_", "resolve_conj", "result_type", "select", "slice", "split", "squeeze", "t", "to", "transpose",
    "unflatten", "unsqueeze", "view", "_unsafe_view",
})
# fmt: on
"""Operators that hand out memory or look at it otherwise; ``to`` and the like only if they call no other."""
WAITS = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "equal"})
"""Operators after which the host knows a value of the device."""


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        step: All of an iteration.
        loss: Its forward passes and losses.
        infer: Maps one image.
    """

    step: Callable[[], object]
    loss: Callable[[], Tensor]
    infer: Callable[[], object]


@dataclass(frozen=True)
class Operators:
    """How many ran: those that compute or copy, and those at which the host waits."""

    computing: int
    waiting: int


def count_operators(run: Callable[[], object]) -> Operators:
    """Count the innermost operators of one run."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    roots = [event for event in profile.events() if event.cpu_parent is None]
    names = [name for root in roots for name in _computing(root)]
    return Operators(len(names), sum(name in WAITS for name in names))


def _computing(event: Any) -> Iterator[str]:
    """Operators among an event and those that it called, of which none called another that computes."""
    inner = [name for child in event.cpu_children for name in _computing(child)]
    kind, _, name = event.name.partition("::")
    if inner or kind != "aten" or name in MOVES_NOTHING:
        yield from inner
    else:
        yield name


class Noise:
    """Images that cost the same as photographs."""

    identity = "noise"

    def images(self, size: tuple[int, int], *, center_crop: tuple[int, int] | None = None, **_: Any) -> ImageSet:
        return ImageSet(torch.randint(0, 256, (8, 3, *(center_crop or size)), dtype=torch.uint8))


def ours(size: Size, device: torch.device, precision: TrainingPrecision, step: StepName) -> Variant:
    network = EfficientAdNetwork(size, padding=False).to(device)
    context = FitContext(seed=0, device=device, photographs=Noise())
    options = TrainingOptions(LEARNING_RATE, WEIGHT_DECAY, precision, step)
    training = Training(network, Noise().images((256, 256)), context, steps=1000, options=options)
    uint8 = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8, device=device)
    image = network.prepare(uint8)
    with torch.no_grad():
        target = network.target(network.teacher(image))

    def loss() -> Tensor:
        network.train().zero_grad()
        return STEPS[step](network, image=image, augmented=image, penalty=image, target=target, precision=precision)

    fitted = deepcopy(network).eval()
    take_fewer_multiplications(fitted)

    @torch.inference_mode()
    def infer() -> object:
        return fitted(uint8)

    def whole() -> object:
        network.train()
        return training.step()

    return Variant(whole, loss, infer)


def anomalib(size: Size, device: torch.device, precision: TrainingPrecision) -> Variant:
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel, EfficientAdModelSize  # type: ignore[import-not-found]

    model = EfficientAdModel(teacher_out_channels=384, model_size=EfficientAdModelSize[size]).to(device)
    model.mean_std["std"].data.fill_(1.0)
    model.mean_std["mean"].data.fill_(0.1)
    parameters = [*model.student.parameters(), *model.ae.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    image = torch.rand(1, 3, 256, 256, device=device)
    penalty = torch.rand(1, 3, 256, 256, device=device)

    def loss() -> Tensor:
        model.train().zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            total: Tensor = sum(model(batch=image, batch_imagenet=penalty))
        return total

    def step() -> object:
        total = loss()
        total.backward()
        optimizer.step()
        return total

    @torch.inference_mode()
    def infer() -> object:
        return model.eval()(image)

    return Variant(step, loss, infer)


def variants(size: Size, device: torch.device) -> dict[str, Variant]:
    """Every way that this machine has, by name and precision; says which it lacks."""
    precisions: list[TrainingPrecision] = ["fp32", "bf16"]
    if device.type == "cpu" and lacks_instructions("bf16", cpu_features()):
        print("bf16: not supported by this CPU")
        precisions.remove("bf16")
    found = {}
    for precision in precisions:
        if importlib.util.find_spec("anomalib"):
            found[f"anomalib {precision}"] = anomalib(size, device, precision)
        else:
            print(f"anomalib {precision}: not installed")
        choices: tuple[Literal["reference"], Literal["fast"]] = ("reference", "fast")
        for choice in choices:
            try:
                found[f"{choice} {precision}"] = ours(size, device, precision, choose_step(choice, device))
            except MethodError as error:
                print(f"{choice} {precision}: {str(error).splitlines()[0]}")
    return found


def time_steps(
    steps: dict[str, Callable[[], object]], device: torch.device, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of a step, on the wall's clock and on the CPUs', after two rounds of warm-up."""
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 2):
        for name, step in steps.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_ >= 2:
                wall[name].append(time.perf_counter() - begin)
                cpu[name].append(time.process_time() - begin_cpu)
    return (
        {name: statistics.median(times) for name, times in wall.items()},
        {name: statistics.median(times) for name, times in cpu.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="S", choices=("S", "M"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=8, help="timed steps of each variant, after two of warm-up")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    import_torchvision()

    found = variants(arguments.size, device)
    wall, cpu = time_steps({name: variant.step for name, variant in found.items()}, device, arguments.rounds)
    load = os.getloadavg()[0]
    print(f"EfficientAD-{arguments.size}, {arguments.device}, {arguments.threads} threads, load {load:.1f}")
    print(
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, medians of {arguments.rounds} steps\n"
    )
    print("| variant | wall s | CPU s | times as fast as the reference fp32 | operators | host waits | of inference |")
    print("|---|---|---|---|---|---|---|")
    for name, variant in found.items():
        of_step = count_operators(lambda variant=variant: variant.loss().backward())  # type: ignore[misc]
        of_inference = count_operators(variant.infer)
        ratio = wall["reference fp32"] / wall[name]
        print(
            f"| {name} | {wall[name]:.3f} | {cpu[name]:.3f} | {ratio:.2f} | {of_step.computing} | {of_step.waiting} "
            f"| {of_inference.computing}, {of_inference.waiting} waits |"
        )


if __name__ == "__main__":
    main()
