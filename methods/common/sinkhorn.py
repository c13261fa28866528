"""Entropic optimal transport between small clouds of points."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def sinkhorn_divergence(
    pairs: Sequence[tuple[Tensor, Tensor]], *, blur: float, scaling: float, diameter: float
) -> Tensor:
    """Debiased Sinkhorn divergence of pairs of clouds (Feydy et al. 2019, equation 3), for the cost ``|x - y|² / 2``.

    Every point of a cloud has the same mass, together 1. The dual potentials are iterated symmetrically in the
    logarithmic domain while epsilon falls from ``diameter²`` to ``blur²``. The gradient is that of the last iteration,
    which at convergence is the divergence's own.

    Args:
        pairs: Clouds (N, D) and (N, D); N is the same for all pairs, D is not.
        blur: Length below which masses are not told apart.
        scaling: Factor on that length from one iteration to the next, below 1.
        diameter: Length at the beginning.

    Returns:
        One value per pair.
    """
    # Each potential lives on the first cloud of its cost; what it does not live on is a constant to its gradient.
    costs = torch.stack([_costs(x, y) for x, y in pairs])
    epsilons = epsilon_schedule(blur, scaling, diameter)
    with torch.no_grad():
        potentials = _soft_minimum(epsilons[0], costs, torch.zeros_like(costs[..., 0]))
        for epsilon in epsilons:
            potentials = (potentials + _soft_minimum(epsilon, costs, _other_sides(potentials))) / 2
    potentials = _soft_minimum(epsilons[-1], costs, _other_sides(potentials))
    to_other, from_other, within_first, within_second = potentials.mean(2).unbind(1)
    return to_other + from_other - within_first - within_second


def epsilon_schedule(blur: float, scaling: float, diameter: float) -> list[float]:
    """Epsilons of the iterations: ``diameter²`` twice, falling by ``scaling²`` each, and ``blur²`` at last."""
    count = math.ceil(math.log(blur / diameter) / math.log(scaling))
    return [diameter**2, *((diameter * scaling**number) ** 2 for number in range(count)), blur**2]


def _other_sides(potentials: Tensor) -> Tensor:
    """Of the four potentials of each pair, (L, 4, N), each one's on the other side of the same transport."""
    return torch.cat([potentials[:, 1:2], potentials[:, :1], potentials[:, 2:]], dim=1)


def _soft_minimum(epsilon: float, costs: Tensor, potentials: Tensor) -> Tensor:
    """Soft minimum over the last axis of costs (..., N, N) less potentials (..., N), (..., N)."""
    exponents = (potentials[..., None, :] - costs) / epsilon
    return -epsilon * (exponents.logsumexp(-1) - math.log(costs.shape[-1]))


def _costs(x: Tensor, y: Tensor) -> Tensor:
    """Costs from the first cloud to the second, back, and of each with itself, (4, N, N)."""
    fixed_x, fixed_y = x.detach(), y.detach()
    return torch.stack([_cost(x, fixed_y), _cost(y, fixed_x), _cost(x, fixed_x), _cost(y, fixed_y)])


def _cost(x: Tensor, y: Tensor) -> Tensor:
    """Half the squared distances of points (N, D) from other points (N, D), (N, N)."""
    return (x.square().sum(1)[:, None] + y.square().sum(1)) / 2 - x @ y.T
