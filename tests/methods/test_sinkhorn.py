import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from methods.common.sinkhorn import epsilon_schedule, sinkhorn_divergence


def cloud(count, seed, dim=3):
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def divergence(x, y, **options):
    return sinkhorn_divergence([(x, y)], **{"blur": 0.05, "scaling": 0.9, "diameter": 10, **options})[0]


def test_small_blur_is_exact_optimal_assignment():
    x, y = cloud(8, 0), cloud(8, 1)
    cost = torch.cdist(x, y).square() / 2
    rows, columns = linear_sum_assignment(cost.numpy())
    exact = cost[rows, columns].mean().item()
    assert divergence(x, y, blur=1e-2, scaling=0.95).item() == pytest.approx(exact, rel=1e-2)


def literal(x, y, blur, scaling, diameter):
    """Equation 3 of Feydy et al., its dual potentials iterated number by number."""

    def cost(a, b):
        return [[sum((p - q) ** 2 for p, q in zip(u, v, strict=True)) / 2 for v in b] for u in a]

    def soft(eps, rows, potential):
        def one(row):
            return -eps * math.log(sum(math.exp((h - c) / eps) for c, h in zip(row, potential, strict=True)) / len(row))

        return [one(row) for row in rows]

    def transport(a, b):
        forth, back = cost(a, b), cost(b, a)
        f, g = soft(diameter**2, forth, [0] * len(b)), soft(diameter**2, back, [0] * len(a))
        epsilons = [diameter**2]
        while (scaled := diameter * scaling ** (len(epsilons) - 1)) > blur:
            epsilons.append(scaled**2)
        for eps in [*epsilons, blur**2]:
            new_f, new_g = soft(eps, forth, g), soft(eps, back, f)
            f = [(p + q) / 2 for p, q in zip(f, new_f, strict=True)]
            g = [(p + q) / 2 for p, q in zip(g, new_g, strict=True)]
        f, g = soft(blur**2, forth, g), soft(blur**2, back, f)
        return sum(f) / len(f) + sum(g) / len(g)

    return transport(x, y) - (transport(x, x) + transport(y, y)) / 2


def test_divergence_is_the_literal_one():
    x, y = cloud(4, 2), cloud(4, 3)
    options = {"blur": 0.5, "scaling": 0.8, "diameter": 6}
    assert divergence(x, y, **options).item() == pytest.approx(literal(x.tolist(), y.tolist(), **options), rel=1e-9)


def test_a_cloud_is_no_way_from_itself_in_another_order():
    x = cloud(6, 4).requires_grad_()
    value = divergence(x, x[[3, 1, 5, 0, 2, 4]].detach())
    (gradient,) = torch.autograd.grad(value, x)
    assert abs(value.item()) < 1e-12
    assert gradient.abs().max() < 1e-12


def test_gradient_is_that_of_the_value():
    x, y = cloud(5, 5), cloud(5, 6)
    converged = {"blur": 3, "scaling": 0.97, "diameter": 30}
    (gradient,) = torch.autograd.grad(divergence(x.requires_grad_(), y, **converged), x)
    moved = x.detach().clone()
    moved[0, 0] += 1e-4
    back = moved.clone()
    back[0, 0] -= 2e-4
    slope = (divergence(moved, y, **converged) - divergence(back, y, **converged)) / 2e-4
    assert gradient[0, 0].item() == pytest.approx(slope.item(), rel=1e-2)


def test_several_pairs_at_once():
    pairs = [(cloud(4, 7), cloud(4, 8)), (cloud(4, 9, dim=9), cloud(4, 10, dim=9))]
    together = sinkhorn_divergence(pairs, blur=0.1, scaling=0.9, diameter=10)
    alone = [divergence(x, y, blur=0.1).item() for x, y in pairs]
    assert together.tolist() == pytest.approx(alone)


def test_epsilons_fall_from_diameter_to_blur():
    epsilons = epsilon_schedule(0.05, 0.95, 1e7)
    assert (epsilons[0], epsilons[1], epsilons[-1]) == (1e14, 1e14, 0.05**2)
    assert epsilons[2] == pytest.approx(1e14 * 0.95**2)
    assert epsilons[-2] > epsilons[-1]
    assert len(epsilons) == 375
