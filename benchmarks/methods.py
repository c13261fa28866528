"""Methods here against anomalib's of the same name, on the same images, backbone and device, interleaved in one run.

Fit is all of PatchCore's memory bank, or a number of training steps of FastFlow and EfficientAD, with networks built
anew. anomalib's torch models are trained in a plain loop, on images that lie ready as normalised tensors: its engine,
which reads files, takes no part. Backbones have random weights, which cost the same as others. Not compared are DSR and
L2BT, whose networks anomalib downloads, and RD++ and SimpleNet, of which anomalib has relatives but not the methods.

The coreset is that of anomalib's KCenterGreedy: in its projection and from its start, so that the picks can be the
same. Patches are those of textures that ship with scikit-image.

    pip install 'anomalib>=2.7'
    python -m benchmarks.methods --threads 2
    python -m benchmarks.methods --threads 2 --quick
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.efficientad_step import anomalib as their_efficientad
from benchmarks.efficientad_step import ours as our_efficientad
from benchmarks.patchcore import SIZE, crops
from methods.common.backbones import Backbone
from methods.common.coreset import greedy_coreset
from methods.common.nearest import rows
from methods.common.patch_features import PatchFeatures
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.from_anomalib.models import anomalib_models
from methods.registry import load_method

BACKBONE = "wide_resnet50_2"
PREDICT_BATCH = 16
FITTED = Callable[[Tensor], object]
"""Predicts a batch of uint8 images."""


@dataclass(frozen=True)
class Workload:
    """What is timed.

    Attributes:
        images: uint8 (N, 3, SIZE, SIZE), to fit on; the first of them are also predicted.
        predicted: How many are predicted.
        steps: Of training, of methods that train.
        batch: Images per step.
        fraction: Of the patches that PatchCore keeps.
        device: Where the networks run.
    """

    images: Tensor
    predicted: int
    steps: int
    batch: int
    fraction: float
    device: torch.device


def ours(name: str, work: Workload, **options: object) -> FITTED:
    """Fit a method of this project."""
    method = load_method(name)
    given = {"backbone": BACKBONE, "backbone_weights": "random", "image_size": (SIZE, SIZE), **options}
    detector = method(make_config(method, None, given))
    with reproducible(0, work.device):
        detector.fit(ImageSet(work.images), ImageSet(work.images, []), FitContext(0, device=work.device))
    return detector.predict


def their_patchcore(work: Workload) -> FITTED:
    """Fill anomalib's memory bank."""
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(["layer2", "layer3"], BACKBONE, pre_trained=False, num_neighbors=1).to(work.device).train()
    for images in work.images.split(PREDICT_BATCH):
        model(normalised(images, work.device))
    model.subsample_embedding(work.fraction)
    return predictor(model, work.device)


def their_fastflow(work: Workload) -> FITTED:
    """Train anomalib's flows."""
    from anomalib.models.image.fastflow.loss import FastflowLoss
    from anomalib.models.image.fastflow.torch_model import FastflowModel

    model, criterion = FastflowModel((SIZE, SIZE), BACKBONE, pre_trained=False).to(work.device).train(), FastflowLoss()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-3, weight_decay=1e-5)
    ready = normalised(work.images, work.device)
    for _ in range(work.steps):
        loss = criterion(*model(ready[torch.randperm(len(ready))[: work.batch]]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return predictor(model, work.device)


def normalised(images: Tensor, device: torch.device) -> Tensor:
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (images.to(device) / 255 - mean) / std


def predictor(model: Any, device: torch.device) -> FITTED:
    """Predict as anomalib's model does, normalisation included."""
    model.eval()

    @torch.inference_mode()
    def predict(images: Tensor) -> object:
        return model(normalised(images, device))

    return predict


def efficientad(variant: Any, work: Workload) -> FITTED:
    """Train one of the variants of EfficientAD's benchmark, which bring images of their own."""
    for _ in range(work.steps):
        variant.step()
    return lambda images: [variant.infer() for _ in images]


def methods(work: Workload) -> dict[str, tuple[Callable[[], FITTED], Callable[[], FITTED]]]:
    """How each method is fitted here and by anomalib."""
    found: dict[str, tuple[Callable[[], FITTED], Callable[[], FITTED]]] = {
        "PatchCore": (
            lambda: ours("patchcore", work, coreset_fraction=work.fraction),
            lambda: their_patchcore(work),
        ),
        "FastFlow": (
            lambda: ours("fastflow", work, training_steps=work.steps, batch_size=work.batch),
            lambda: their_fastflow(work),
        ),
    }
    for size in ("S", "M"):
        found[f"EfficientAD-{size}"] = (
            lambda size=size: efficientad(our_efficientad(size, work.device, "fp32", "fast"), work),
            lambda size=size: efficientad(their_efficientad(size, work.device, "fp32"), work),
        )
    return found


def time_method(fit: Callable[[], FITTED], work: Workload) -> tuple[float, float]:
    """Seconds of a fit and of predictions; the first batch, which may choose kernels, is not timed."""
    fitted: list[FITTED] = []
    of_fit = seconds(lambda: fitted.append(fit()), work.device)
    batches = work.images[: work.predicted].split(PREDICT_BATCH)
    fitted[0](batches[0])
    return of_fit, seconds(lambda: [fitted[0](images) for images in batches], work.device)


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    start = time.perf_counter()
    work()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def print_methods(work: Workload, repeat: int, names: list[str]) -> None:
    """Time every method both ways in turn; print medians and ratios."""
    print("| method | fit, s | anomalib, s | ratio | predict, s | anomalib, s | ratio |\n|---|---|---|---|---|---|---|")
    for name, (fit_ours, fit_theirs) in methods(work).items():
        if names and name not in names:
            continue
        times: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
        for _ in range(repeat):
            times[0].append(time_method(fit_ours, work))
            times[1].append(time_method(fit_theirs, work))
        own, theirs = ([statistics.median(part) for part in zip(*pairs, strict=True)] for pairs in times)
        cells = [f"{a:.2f} | {b:.2f} | {b / a:.2f}" for a, b in zip(own, theirs, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def patches(count: int) -> Tensor:
    """PatchCore's features of textures, float32 (count, 1024), by the embedded backbone."""
    features = PatchFeatures(Backbone("efficientnet_lite0", (8, 16), "embedded", Path()), 1024, (SIZE, SIZE))
    per_image = features.grid[0] * features.grid[1]
    filled = torch.empty(count, 1024)
    with torch.inference_mode():
        for start, images in zip(range(0, count, 16 * per_image), crops(-(-count // per_image)).split(16), strict=True):
            found = rows(features(images))[: count - start]
            filled[start : start + len(found)] = found
    return filled


def print_coreset(count: int, fraction: float) -> None:
    """Time the coreset of ``count`` patches by KCenterGreedy and by ours, both from projection to picks."""
    from anomalib.models.components import KCenterGreedy

    vectors = patches(count)
    theirs: list[Tensor] = []
    own: list[Tensor] = []

    def pick_theirs() -> None:
        theirs.append(torch.tensor(KCenterGreedy(vectors, fraction).select_coreset_idxs()))

    def pick_ours() -> None:
        sampler = KCenterGreedy(vectors, fraction)
        sampler.model.fit(vectors)
        points = sampler.model.transform(vectors)
        start = torch.randint(high=count, size=(1,))
        # Its start is its first pick; ours is only where distances are measured from.
        own.append(torch.cat([start, greedy_coreset(points, sampler.coreset_size - 1, start)]))

    times = []
    for pick in (pick_ours, pick_theirs):
        np.random.seed(0)  # noqa: NPY002 -- scikit-learn's way of drawing a projection
        torch.manual_seed(0)
        times.append(seconds(pick))
    same = int((own[0] == theirs[0]).sum())
    print(f"\nCoreset of {len(own[0])} of {count} patches of 1024 numbers: {times[0]:.1f} s, theirs {times[1]:.1f} s:")
    print(f"{times[1] / times[0]:.2f} times as fast; {same} picks of {len(own[0])} are the same")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--images", type=int, default=60, help="of the training set")
    parser.add_argument("--predicted", type=int, default=32, help="images")
    parser.add_argument("--steps", type=int, default=10, help="of training")
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--patches", type=int, default=350_000, help="that a coreset is chosen of; 0 for none")
    parser.add_argument("--fraction", type=float, default=0.01, help="of the patches kept")
    parser.add_argument("--only", nargs="*", default=[], help="names of methods")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.repeat, arguments.images, arguments.predicted, arguments.steps = 1, 4, 2, 1
        arguments.batch, arguments.patches = 2, 20_000
    torch.set_num_threads(arguments.threads)
    anomalib_models()  # imports it, with the warnings of its imports kept quiet

    images = crops(arguments.images)
    work = Workload(
        images,
        arguments.predicted,
        arguments.steps,
        arguments.batch,
        arguments.fraction,
        torch.device(arguments.device),
    )
    print(
        f"{arguments.device}, {arguments.threads} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}: "
        f"{len(images)} images to fit on, {arguments.steps} steps of {arguments.batch}, {arguments.predicted} "
        f"predicted, medians of {arguments.repeat}; ratio above 1: faster here\n"
    )
    greedy_coreset(torch.rand(100, 8), 5, torch.zeros(1, dtype=torch.int64))  # compiles
    print_methods(work, arguments.repeat, arguments.only)
    if arguments.patches:
        print_coreset(arguments.patches, arguments.fraction)


if __name__ == "__main__":
    main()
