"""What a frozen network makes of training images: never changes, so it is computed once where memory allows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from methods.common.statistics import ChannelStatistics
from methods.detector import FitContext, ImageSet, Progress


class FrozenFeatures:
    """Features of training images on a device: kept of as many images as a budget allows, computed anew of the others.

    Args:
        compute: Maps uint8 images (B, 3, H, W) on the device to feature maps (B, C, h, w), one or several.
        images: The training images.
        device: Where features are computed and kept.
        budget: Bytes that may be kept.
        batch_size: Images computed at a time.
        progress: Is told how many images have been computed.
        observe: Is given each batch of features while they are computed for the first time, in order.
    """

    def __init__(
        self,
        compute: Callable[[Tensor], Sequence[Tensor]],
        images: ImageSet,
        device: torch.device,
        budget: int,
        *,
        batch_size: int = 16,
        progress: Callable[[Progress], None] = lambda _: None,
        observe: Callable[[Sequence[Tensor]], None] | None = None,
    ) -> None:
        self._compute = compute
        self._images = images
        self._device = device
        self._kept: list[Tensor] = []
        self._count = 0
        done = 0
        for batch in images.batches(batch_size):
            levels = self._run(batch)
            if done == 0:
                self._count = min(len(images), budget // sum(level[0].nbytes for level in levels))
                self._kept = [_room(level, self._count) for level in levels]
            kept_of_batch = max(0, min(len(batch), self._count - done))
            for kept, level in zip(self._kept, levels, strict=True):
                kept[done : done + kept_of_batch] = level[:kept_of_batch]
            if observe is not None:
                observe(levels)
            done += len(batch)
            progress(Progress("features", done, len(images)))
            if done >= self._count and observe is None:
                break

    def __len__(self) -> int:
        return len(self._images)

    @property
    def kept(self) -> int:
        """Of how many images, the first ones, features are kept."""
        return self._count

    def __getitem__(self, chosen: Sequence[int]) -> list[Tensor]:
        """Feature maps (B, C, h, w) of the chosen images, in their order and in the memory format computed."""
        if max(chosen) < self._count:
            # Not indexed by a list, which would be copied to the device while the host waits.
            return [torch.cat([level[index : index + 1] for index in chosen]) for level in self._kept]
        return list(self._run(self._images[chosen]))

    @torch.no_grad()
    def _run(self, images: Tensor) -> Sequence[Tensor]:
        return self._compute(images.to(self._device, non_blocking=True))


def measured_features(
    compute: Callable[[Tensor], Tensor], channels: int, images: ImageSet, context: FitContext, budget: int
) -> tuple[FrozenFeatures, Tensor, Tensor]:
    """Measure the mean and the standard deviation of each channel of a frozen network's features over all images.

    Args:
        compute: Maps uint8 images (B, 3, H, W) on the device to features (B, channels, h, w).
        channels: Of the features.
        images: The training images; one is computed at a time.
        context: Names the device, and is told how many images have been computed.
        budget: Bytes of features that may be kept.

    Returns:
        The features, not normalised; mean and standard deviation, (1, channels, 1, 1).
    """
    statistics = ChannelStatistics(channels, context.device)
    features = FrozenFeatures(
        lambda batch: [compute(batch)],
        images,
        context.device,
        budget,
        batch_size=1,
        progress=context.progress,
        observe=lambda levels: statistics.add(levels[0]),
    )
    return features, *statistics.mean_and_std()


def _room(features: Tensor, count: int) -> Tensor:
    """Memory for features of ``count`` images, in the type and memory format of these."""
    channels_last = features.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (count, *features.shape[1:]),
        dtype=features.dtype,
        device=features.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )
