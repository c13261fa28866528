"""PatchCore here against anomalib's PatchcoreModel on the same patch features, interleaved in one run.

Features of textures that ship with scikit-image are computed once, by the embedded backbone. Then both fill a memory
bank (coreset) and predict (nearest neighbours, map, score) from them, each by its own unmodified code. The greedy
coreset is also timed against the naive loop, which must pick the same points.

    pip install 'anomalib>=2.7'
    python -m benchmarks.patchcore --threads 2
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from methods.common.backbones import Backbone
from methods.common.coreset import greedy_coreset
from methods.common.memory_bank import CORESET_DIM, CORESET_STARTS, PatchDistances, memory_bank
from methods.common.patch_features import PatchFeatures
from methods.common.torchvision_import import import_torchvision
from methods.detector import FitContext, ImageSet
from methods.patchcore import PatchCoreConfig

SIZE = 224


def crops(count: int) -> Tensor:
    from skimage import data

    textures = [torch.from_numpy(texture()) for texture in (data.brick, data.grass, data.gravel)]
    generator = torch.Generator().manual_seed(0)
    chosen = []
    for index in range(count):
        texture = textures[index % 3]
        top, left = (int(torch.randint(side - SIZE, (1,), generator=generator)) for side in texture.shape)
        chosen.append(texture[top : top + SIZE, left : left + SIZE].expand(3, -1, -1))
    return torch.stack(chosen)


class Stored(PatchFeatures):
    """Features computed in advance: looks them up by a number written into an image's first pixels."""

    def __init__(self, images: Tensor, config: PatchCoreConfig) -> None:
        backbone = Backbone(config.backbone, config.levels, config.backbone_weights, Path())
        super().__init__(backbone, config.dim, config.image_size)
        with torch.no_grad():
            self.maps = torch.cat([super(Stored, self).forward(batch) for batch in images.split(16)])

    @staticmethod
    def numbered(count: int) -> Tensor:
        images = torch.zeros(count, 3, SIZE, SIZE, dtype=torch.uint8)
        images[:, 0, 0, 0], images[:, 1, 0, 0] = torch.arange(count) % 256, torch.arange(count) // 256
        return images

    def forward(self, images: Tensor) -> Tensor:
        return self.maps[images[:, 0, 0, 0].long() + 256 * images[:, 1, 0, 0].long()]


def ours(features: Stored, train: Tensor, test: list[Tensor], config: PatchCoreConfig) -> tuple[float, float]:
    banks: list[Tensor] = []
    fit = seconds(
        lambda: banks.append(memory_bank(features, ImageSet(train), config.coreset_fraction, FitContext(seed=0)))
    )
    module = PatchDistances(features, banks[0], config.image_size, config.neighbours, config.sigma)
    with torch.inference_mode():
        return fit, seconds(lambda: [module(images) for images in test])


def theirs(
    features: Stored, train: Tensor, test: list[Tensor], fraction: float, neighbours: int
) -> tuple[float, float]:
    import_torchvision()
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(["layer2"], backbone="resnet18", pre_trained=False, num_neighbors=neighbours)
    del model.feature_extractor  # only a module could take the place of a module
    model.feature_extractor = lambda images: {"layer2": features(images)}
    model.feature_pooler = nn.Identity()

    def fit() -> None:
        model.train()
        for batch in train.split(16):
            model(batch)
        model.subsample_embedding(fraction)

    filling = seconds(fit)
    model.eval()
    with torch.no_grad():
        return filling, seconds(lambda: [model(images) for images in test])


def naive_coreset(points: Tensor, count: int, starts: Tensor) -> Tensor:
    distances = torch.stack([(points - points[start]).square().sum(1).sqrt() for start in starts], 1).mean(1).square()
    picks = torch.empty(count, dtype=torch.int64)
    for index in range(count):
        picks[index] = distances.argmax()
        distances = torch.minimum(distances, (points - points[picks[index]]).square().sum(1))
    return picks


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60, help="of the training set")
    parser.add_argument("--fraction", type=float, default=0.01, help="of the patches kept")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    config = PatchCoreConfig("efficientnet_lite0", image_size=(SIZE, SIZE), coreset_fraction=arguments.fraction)
    features = Stored(crops(arguments.images), config)
    train = Stored.numbered(arguments.images)
    test = list(train[:32].split(16))
    rows = features.maps.permute(0, 2, 3, 1).flatten(0, 2)
    points = rows @ torch.randn(rows.shape[1], CORESET_DIM, generator=torch.Generator().manual_seed(0))
    starts = torch.arange(0, len(points), len(points) // CORESET_STARTS)[:CORESET_STARTS]
    count = int(len(points) * arguments.fraction)

    greedy_coreset(points[:100], 5, starts[:1] * 0)  # compiles
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "anomalib, 1 neighbour": [], "anomalib, 9 (default)": []}
    coreset: dict[str, list[float]] = {"lazy": [], "naive": []}
    for _ in range(arguments.repeat):
        times["ours"].append(ours(features, train, test, config))
        times["anomalib, 1 neighbour"].append(theirs(features, train, test, arguments.fraction, 1))
        times["anomalib, 9 (default)"].append(theirs(features, train, test, arguments.fraction, 9))
        coreset["lazy"].append(seconds(lambda: greedy_coreset(points, count, starts)))
        coreset["naive"].append(seconds(lambda: naive_coreset(points, count, starts)))
    same = bool((greedy_coreset(points, count, starts) == naive_coreset(points, count, starts)).all())

    print(f"{len(points)} patches, {count} kept, {sum(map(len, test))} test images, {arguments.threads} threads\n")
    print("| implementation | fit, s | predict, s | sum, s | ours is faster by |\n|---|---|---|---|---|")
    own = statistics.median(map(sum, times["ours"]))
    for name, pairs in times.items():
        fit, predict = (statistics.median(part) for part in zip(*pairs, strict=True))
        total = statistics.median(map(sum, pairs))
        print(f"| {name} | {fit:.2f} | {predict:.2f} | {total:.2f} | {total / own:.1f} |")
    lazy, naive = (statistics.median(values) for values in coreset.values())
    print(f"\nGreedy coreset: {lazy:.2f} s, naive loop {naive:.2f} s: {naive / lazy:.0f} times; same picks: {same}")


if __name__ == "__main__":
    main()
