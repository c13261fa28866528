import numpy as np


def simulate(rng, images=40, size=12):
    """Return maps of noise with one brighter square in every second image; how bright differs by image."""
    maps = rng.standard_normal((images, size, size)).astype(np.float32)
    masks = [None] * images
    for i in range(0, images, 2):
        mask = np.zeros((size, size), bool)
        row, column, side = rng.integers(0, 8), rng.integers(0, 8), rng.integers(1, 5)
        mask[row : row + side, column : column + side] = True
        maps[i][mask] += rng.normal(1.5, 1)
        masks[i] = mask
    return maps, masks
