"""Simplex and Perlin noise: smooth random fields."""

import math
from itertools import product

import torch
from torch import Tensor

STRETCH = -1 / 6
"""Of a point's coordinates, the share of their sum that is added to each to come to the lattice's coordinates."""
SQUISH = 1 / 3
"""Likewise, to come back."""
SQUARED_RADIUS = 2
"""How far a node reaches, squared: to its nearest neighbours."""
NORM = 103
"""Brings values into about -1 to 1."""
GRADIENTS = torch.tensor(
    [
        [sign_x * x, sign_y * y, sign_z * z]
        for sign_z, sign_y, sign_x in product((1, -1), (1, -1), (-1, 1))
        for x, y, z in ((11, 4, 4), (4, 11, 4), (4, 4, 11))
    ],
    dtype=torch.float64,
)
"""Of the nodes, 24 x 3: the corners of a rhombicuboctahedron, skewed."""


def random_order(generator: torch.Generator) -> Tensor:
    """A random order of 0 to 255, from which :func:`simplex_noise` takes the gradients of its nodes."""
    return torch.randperm(256, generator=generator)


def simplex_noise(points: Tensor, order: Tensor) -> Tensor:
    """Evaluate OpenSimplex noise (Spencer 2014), a sum over all nodes of a skewed cubic lattice near a point.

    A node adds ``(2 - d²)⁴ g·(point - node)`` if its distance ``d`` is below the square root of 2; its gradient ``g``
    is one of 24, chosen by its three coordinates. Code of that name leaves out nodes that add less than 1e-4.

    Args:
        points: (..., 3), float64.
        order: What :func:`random_order` draws.

    Returns:
        Values of about -1 to 1, (...).
    """
    origin = (points + STRETCH * points.sum(-1, keepdim=True)).floor()
    values = torch.zeros_like(points[..., 0])
    # A node that reaches a point is less than 1.23 away along each axis of the lattice.
    for offset in product((-1, 0, 1, 2), repeat=3):
        node = origin + torch.tensor(offset)
        displacement = points - node - SQUISH * node.sum(-1, keepdim=True)
        weight = (SQUARED_RADIUS - displacement.square().sum(-1)).clamp_min(0).pow(4)
        values += weight * (_gradients(node.long(), order) * displacement).sum(-1)
    return values / NORM


def _gradients(nodes: Tensor, order: Tensor) -> Tensor:
    """Gradients (..., 3) of nodes (..., 3), int64."""
    x, y, z = nodes.unbind(-1)
    number = order[(order[(order[x & 255] + y) & 255] + z) & 255]
    return GRADIENTS[number % len(GRADIENTS)]


def fractal_noise(
    shape: tuple[int, int, int], order: Tensor, *, octaves: int, persistence: float, period: float = 32
) -> Tensor:
    """Sum simplex noise of ever finer periods at the points of a grid, float32 of ``shape``.

    Args:
        shape: Depth, height and width of the grid, whose neighbouring points are 1 apart.
        order: What :func:`random_order` draws.
        octaves: How many periods, each half of the one before.
        persistence: Amplitude of each, relative to the one before; that of the first is 1.
        period: The first.
    """
    depth, height, width = (torch.arange(length, dtype=torch.float64) for length in shape)
    z, y, x = torch.meshgrid(depth, height, width, indexing="ij")
    points = torch.stack([x, y, z], dim=-1)
    field = torch.zeros(shape, dtype=torch.float64)
    for octave in range(octaves):
        field += persistence**octave * simplex_noise(points * 2**octave / period, order)
    return field.float()


def perlin_noise(size: tuple[int, int], cells: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Draw Perlin noise, float32 of ``size``, of about -1 to 1.

    At the corners of the cells are random unit vectors. A pixel's value is the products of these four with the pixel's
    distances from them, interpolated by ``6t⁵ - 15t⁴ + 10t³`` and multiplied by the square root of 2.

    Args:
        size: Height and width in pixels.
        cells: How many of them, of the same size, the height and the width have.
        generator: Draws the vectors.
    """
    (height, width), (rows, columns) = size, cells
    angles = 2 * math.pi * torch.rand(rows + 1, columns + 1, generator=generator)
    vectors = torch.stack([angles.cos(), angles.sin()])
    y, x = (torch.arange(length) * count / length for length, count in ((height, rows), (width, columns)))
    row, column = y.long(), x.long()
    down, right = (y - row)[:, None], (x - column)[None]

    def product_with(corner_down: int, corner_right: int) -> Tensor:
        along_y, along_x = vectors[:, row + corner_down][:, :, column + corner_right]
        products: Tensor = along_y * (down - corner_down) + along_x * (right - corner_right)
        return products

    vertical, horizontal = (t**3 * (t * (6 * t - 15) + 10) for t in (down, right))
    left = torch.lerp(product_with(0, 0), product_with(1, 0), vertical)
    other = torch.lerp(product_with(0, 1), product_with(1, 1), vertical)
    field: Tensor = math.sqrt(2) * torch.lerp(left, other, horizontal)
    return field
