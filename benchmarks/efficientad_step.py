"""Training step of EfficientAD here against anomalib's EfficientAdModel in a plain loop, interleaved in one run.

Both do all of an iteration: augmentation, forward passes, losses, backward pass, Adam. anomalib's own forward takes a
batch of one image and one pretraining image. Its networks run unpadded and in memory format NCHW, as it builds them.

    pip install 'anomalib>=2.7'
    python benchmarks/efficientad_step.py --threads 2
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from methods.common.torchvision_import import import_torchvision
from methods.detector import FitContext, ImageSet
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.training import Training, TrainingOptions

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 1e-5


class Noise:
    """Images that cost the same as photographs."""

    identity = "noise"

    def images(self, size: tuple[int, int], *, center_crop: tuple[int, int] | None = None, **_: Any) -> ImageSet:
        return ImageSet(torch.randint(0, 256, (8, 3, *(center_crop or size)), dtype=torch.uint8))


def ours(size: str, device: torch.device, bf16: bool) -> Callable[[], object]:
    network = EfficientAdNetwork(size, padding=False).to(device)  # type: ignore[arg-type]
    network = nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
    context = FitContext(seed=0, device=device, photographs=Noise())
    options = TrainingOptions(LEARNING_RATE, WEIGHT_DECAY, bf16)
    return Training(network, Noise().images((256, 256)), context, steps=1_000_000, options=options).step


def theirs(size: str, device: torch.device, bf16: bool) -> Callable[[], object]:
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel, EfficientAdModelSize

    model = EfficientAdModel(teacher_out_channels=384, model_size=EfficientAdModelSize[size]).to(device).train()
    model.mean_std["std"].data.fill_(1.0)
    model.mean_std["mean"].data.fill_(0.1)
    parameters = [*model.student.parameters(), *model.ae.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    image = torch.rand(1, 3, 256, 256, device=device)
    penalty = torch.rand(1, 3, 256, 256, device=device)

    def step() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss: Tensor = sum(model(batch=image, batch_imagenet=penalty))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


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

    steps = {
        f"{name} {'bf16' if bf16 else 'fp32'}": make(arguments.size, device, bf16)
        for bf16 in (False, True)
        for name, make in (("anomalib", theirs), ("this harness", ours))
    }
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(arguments.rounds + 2):
        for name, step in steps.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_ >= 2:
                wall[name].append(time.perf_counter() - begin)
                cpu[name].append(time.process_time() - begin_cpu)

    load = os.getloadavg()[0]
    print(f"EfficientAD-{arguments.size}, {arguments.device}, {arguments.threads} threads, load {load:.1f}")
    print(
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, medians of {arguments.rounds} steps\n"
    )
    print("| variant | wall s | CPU s | times as fast as anomalib fp32 | as anomalib in its precision |")
    print("|---|---|---|---|---|")
    medians = {name: statistics.median(times) for name, times in wall.items()}
    for name, median in medians.items():
        peers = ("anomalib fp32", f"anomalib {name.split()[-1]}")
        ratios = " | ".join(f"{medians[peer] / median:.2f}" for peer in peers)
        print(f"| {name} | {median:.3f} | {statistics.median(cpu[name]):.3f} | {ratios} |")


if __name__ == "__main__":
    main()
