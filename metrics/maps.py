"""Sequences of anomaly maps that are made image by image, when they are asked for."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from metrics.errors import MetricError

Item = TypeVar("Item", covariant=True)
Padding = tuple[int, int, int, int]


class UpsampledMaps(Sequence[NDArray[Any]]):
    """Network-resolution maps, each upsampled to its image's original size when it is read.

    Interpolation is bilinear with half-pixel centres: ``interpolate(mode="bilinear", align_corners=False)`` of
    torch, to 1e-6 of the value range. Reading is safe from several threads and holds no interpreter lock.

    Args:
        network_maps: n float arrays (h_i, w_i), or one (n, h, w) array; float16 is upsampled in float32.
        sizes: the original (height, width) of each image.
        padding: rows and columns of the network map, as (top, bottom, left, right), that exist only because the
            method padded its input; they are cut off before the upsampling. One for all maps, or one for each.

    Raises:
        MetricError: lengths differ, or a size or padding is impossible.
    """

    def __init__(
        self,
        network_maps: Sequence[NDArray[Any]] | NDArray[Any],
        sizes: Sequence[tuple[int, int]],
        padding: Padding | Sequence[Padding] = (0, 0, 0, 0),
    ) -> None:
        if len(network_maps) != len(sizes):
            raise MetricError(f"{len(network_maps)} network maps for {len(sizes)} image sizes")
        paddings = np.broadcast_to(np.asarray(padding, dtype=np.int64), (len(sizes), 4))
        if (paddings < 0).any():
            raise MetricError(f"padding must not be negative, is {padding}")
        if any(height < 1 or width < 1 for height, width in sizes):
            raise MetricError("image sizes must be at least 1 × 1")
        self._maps = network_maps
        self._sizes = sizes
        self._paddings = paddings

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        from metrics import kernels

        source = np.asarray(self._maps[index])
        top, bottom, left, right = (int(side) for side in self._paddings[index])
        if source.ndim != 2 or source.shape[0] <= top + bottom or source.shape[1] <= left + right:
            raise MetricError(
                f"image {index}: a network map of shape {source.shape} cannot lose padding {(top, bottom, left, right)}"
            )
        dtype = np.float64 if source.dtype == np.float64 else np.float32
        source = source[top : source.shape[0] - bottom, left : source.shape[1] - right]
        if source.shape == tuple(self._sizes[index]):
            return source
        out = np.empty(self._sizes[index], dtype)
        kernels.upsample(np.ascontiguousarray(source, dtype=dtype), out)
        return out


class Subset(Sequence[Item], Generic[Item]):
    """The items of a sequence at the given positions, still read only when they are asked for."""

    def __init__(self, items: Sequence[Item] | NDArray[Any], positions: Sequence[int]) -> None:
        self._items = items
        self._positions = positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Subset(self._items, self._positions[index])
        return self._items[self._positions[index]]
