"""What a frozen network makes of training images: never changes, so it is computed once where memory allows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from methods.detector import ImageSet, Progress


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


def _room(features: Tensor, count: int) -> Tensor:
    """Memory for features of ``count`` images, in the type and memory format of these."""
    channels_last = features.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (count, *features.shape[1:]),
        dtype=features.dtype,
        device=features.device,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )
