import itertools
import math

import pytest
import torch

from methods.common.noise import fractal_noise, random_order, simplex_noise

ORDER = random_order(torch.Generator().manual_seed(0))


def literal(point, order):
    """The sum over a generous block of nodes, one by one."""
    corners = [
        (sx * x, sy * y, sz * z)
        for sz, sy, sx in itertools.product((1, -1), (1, -1), (-1, 1))
        for x, y, z in ((11, 4, 4), (4, 11, 4), (4, 4, 11))
    ]
    base = [math.floor(c - sum(point) / 6) for c in point]
    total = 0.0
    for offset in itertools.product(range(-3, 5), repeat=3):
        node = [b + o for b, o in zip(base, offset, strict=True)]
        away = [p - n - sum(node) / 3 for p, n in zip(point, node, strict=True)]
        weight = max(0.0, 2 - sum(d * d for d in away)) ** 4
        number = order[(order[(order[node[0] % 256] + node[1]) % 256] + node[2]) % 256]
        total += weight * sum(g * d for g, d in zip(corners[number % 24], away, strict=True))
    return total / 103


def test_noise_is_the_sum_over_all_nodes_that_reach_a_point():
    points = 40 * torch.rand(25, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 20
    expected = [literal(point, ORDER.tolist()) for point in points.tolist()]
    assert simplex_noise(points, ORDER).tolist() == pytest.approx(expected, abs=1e-12)
    assert max(map(abs, expected)) > 0.2


def test_octaves_halve_their_period_and_lose_amplitude():
    field = fractal_noise((2, 3, 4), ORDER, octaves=3, persistence=0.6)
    assert field.shape == (2, 3, 4)
    for z, y, x in itertools.product(range(2), range(3), range(4)):
        octaves = [0.6**k * literal([v / (32 / 2**k) for v in (x, y, z)], ORDER.tolist()) for k in range(3)]
        assert field[z, y, x].item() == pytest.approx(sum(octaves), abs=1e-6)


def test_noise_is_seeded_bounded_and_smooth():
    def field(seed):
        order = random_order(torch.Generator().manual_seed(seed))
        return fractal_noise((3, 32, 32), order, octaves=1, persistence=1)

    assert torch.equal(field(0), field(0))
    assert not torch.equal(field(0), field(1))
    assert field(0).abs().max() <= 1
    assert field(0).diff(dim=2).abs().max() < 0.15
