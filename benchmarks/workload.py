"""Maps and masks to measure metrics on."""

import numpy as np
from numpy.typing import NDArray

import metrics

Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]


def workload(images: int, size: int, seed: int = 0) -> tuple[Maps, Masks]:
    """Return smooth float32 maps and masks: a third normal, two regions of log-uniform area per other image."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    maps = np.empty((images, size, size), np.float32)
    masks = np.zeros((images, size, size), np.bool_)
    for index in range(images):
        coarse = rng.standard_normal((size // 8 + 8,) * 2)
        for axis in (0, 1):  # a few binomial filters: as smooth as an upsampled map
            for _ in range(8):
                coarse = (np.roll(coarse, 1, axis) + 2 * coarse + np.roll(coarse, -1, axis)) / 4
        maps[index] = upsampled(coarse / coarse.std() * 0.05 + 0.25, size)
        if index >= images // 3:
            for _ in range(2):
                area = 10 ** rng.uniform(1, min(5, np.log10(size * size / 10)))
                stretch, turn = np.exp(rng.uniform(-0.7, 0.7)), rng.uniform(0, np.pi)
                y, x = rng.uniform(0.1 * size, 0.9 * size, 2)
                along = (rows - y) * np.cos(turn) + (columns - x) * np.sin(turn)
                across = (columns - x) * np.cos(turn) - (rows - y) * np.sin(turn)
                radius = (along / stretch) ** 2 + (across * stretch) ** 2
                radius /= area / np.pi
                masks[index] |= radius <= 1
                maps[index] += rng.uniform(0.15, 0.6) * np.exp(-0.5 * radius)
    return np.clip(maps, 1e-3, None), masks


def upsampled(coarse: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return metrics.UpsampledMaps([coarse[: size // 8, : size // 8]], [(size, size)])[0]


def heavy_tailed(maps: Maps) -> Maps:
    """Return the same order of scores with most of them near zero, and one outlier."""
    heavy = (maps / maps.max()) ** np.float32(30)
    heavy[0, 0, 0] = 1e4
    return heavy
