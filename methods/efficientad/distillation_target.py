"""What EfficientAD's teacher is distilled from: photographs, and a backbone's features of them."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from methods.common.backbones import Backbone
from methods.common.patch_features import PatchFeatures
from methods.common.photograph_training import POOL, PhotographPool
from methods.common.statistics import ChannelStatistics
from methods.detector import ImageSource
from methods.efficientad.pdn import MARGIN, RECEPTIVE_FIELD, STRIDE, TEACHER_CHANNELS

BACKBONE_SIZE = (512, 512)
TEACHER_SIZE = (256, 256)


def photograph_pool(photographs: ImageSource, seed: int) -> PhotographPool:
    """Photographs at the sizes of teacher and backbone, in this order; 2 GB at a time."""
    return PhotographPool(photographs, (TEACHER_SIZE, BACKBONE_SIZE), seed)


class DistillationTarget:
    """The backbone's patch features at 512x512 pixels, normalised per channel (Algorithm 3, lines 2-12 and 22).

    Features of images drawn again come from a cache of bounded size: with a small folder the backbone runs once per
    image instead of once per draw.

    Args:
        backbone: Pretrained, with the levels of strides 8 and 16.
        pool: The photographs, as :func:`photograph_pool` makes it.
        device: Where features are computed.
        cache_bytes: Of the host's memory, for the cache.

    Attributes:
        mean: Of each channel, (1, 384, 1, 1); zero until measured.
        std: Likewise, the standard deviation; one until measured.
    """

    def __init__(self, backbone: Backbone, pool: PhotographPool, device: torch.device, cache_bytes: int) -> None:
        self.pool = pool
        self.device = device
        self._backbone_features = PatchFeatures(backbone, TEACHER_CHANNELS, BACKBONE_SIZE).to(device)
        self._cache_bytes = cache_bytes
        self.mean = torch.zeros(1, TEACHER_CHANNELS, 1, 1, device=device)
        self.std = torch.ones(1, TEACHER_CHANNELS, 1, 1, device=device)
        self._cache: dict[tuple[int, bool], Tensor] = {}
        self._cached_pool = pool.number

    def measure(self, count: int, grayscale_probability: float, seed: int) -> None:
        """Set mean and standard deviation of each channel from ``count`` randomly drawn images."""
        generator = torch.Generator().manual_seed(seed)
        statistics = ChannelStatistics(TEACHER_CHANNELS, self.device)
        for chosen in self._draws(count, generator):
            gray = torch.rand(len(chosen), generator=generator) < grayscale_probability
            for start in range(0, len(chosen), 8):
                statistics.add(self._features(chosen[start : start + 8], gray[start : start + 8]))
        mean, std = statistics.mean_and_std()
        self.mean.copy_(mean)
        self.std.copy_(std)

    def _draws(self, count: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield positions of images to measure, each time after their pool has been filled."""
        if not self.pool.whole:
            for number in range(math.ceil(count / POOL)):
                self.pool.fill(number)
                yield torch.arange(min(POOL, count - number * POOL))
        elif count >= 2 * len(self.pool):
            # Drawing a small folder many times over tends to each image once: that limit is exact and cheaper.
            yield torch.arange(len(self.pool))
        else:
            yield torch.randint(len(self.pool), (count,), generator=generator)

    def __call__(self, chosen: Tensor, gray: Tensor) -> Tensor:
        """Normalised features (B, 384, 64, 64) of the chosen images, some of them turned gray."""
        return (self._features(chosen, gray).float() - self.mean) / self.std

    @torch.no_grad()
    def _features(self, chosen: Tensor, gray: Tensor) -> Tensor:
        if self._cached_pool != self.pool.number:
            self._cache, self._cached_pool = {}, self.pool.number
        keys = list(zip(chosen.tolist(), gray.tolist(), strict=True))
        new = sorted({key for key in keys if key not in self._cache})
        fresh: dict[tuple[int, bool], Tensor] = {}
        if new:
            indices, grays = (torch.tensor(part) for part in zip(*new, strict=True))
            batch = grayscale(self.pool.images[1][indices], grays).to(self.device)
            fresh = dict(zip(new, self._backbone_features(batch).half().cpu(), strict=True))
        batch = torch.stack([fresh[key] if key in fresh else self._cache[key] for key in keys])
        room = self._cache_bytes // batch[0].nbytes - len(self._cache)
        self._cache |= dict(list(fresh.items())[: max(0, room)])
        return batch.to(self.device)


def grayscale(images: Tensor, chosen: Tensor) -> Tensor:
    """Replace the chosen uint8 RGB images by their luma (ITU-R 601, as PIL and torchvision convert)."""
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    images = images.clone()
    images[chosen] = rgb_to_grayscale(images[chosen], num_output_channels=3)
    return images


def squares(images: Tensor, target: Tensor, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut one random square out of each image, and the target of the unpadded network's outputs on it.

    Args:
        images: (B, C, H, W).
        target: Of the padded network's outputs on the whole images, (B, D, H / 4, W / 4).
        side: In pixels, of the squares; their corners are multiples of the stride, as their outputs' patches are.
        generator: Draws the corners.

    Returns:
        Squares (B, C, side, side) and target (B, D, n, n), for the n * n patches that lie inside a square.
    """
    outputs = (side - RECEPTIVE_FIELD) // STRIDE + 1
    rows = torch.randint((images.shape[2] - side) // STRIDE + 1, (len(images),), generator=generator).tolist()
    columns = torch.randint((images.shape[3] - side) // STRIDE + 1, (len(images),), generator=generator).tolist()
    cut_images, cut_target = [], []
    for image, features, row, column in zip(images, target, rows, columns, strict=True):
        top, left = row * STRIDE, column * STRIDE
        cut_images.append(image[:, top : top + side, left : left + side])
        top, left = row + MARGIN, column + MARGIN
        cut_target.append(features[:, top : top + outputs, left : left + outputs])
    return torch.stack(cut_images), torch.stack(cut_target)
