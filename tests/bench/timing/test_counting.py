"""Costs as the papers count them."""

import pytest
import torch
from torch import nn

from bench.errors import DataError
from bench.timing.counting import count_costs, memory_bank_values
from methods.common.nearest import nearest_distances, rows
from methods.common.resampling import Resize
from methods.efficientad.detector import EfficientAd, EfficientAdConfig, EfficientAdM, EfficientAdS
from methods.efficientad.networks import EfficientAdNetwork


class Bank(nn.Module):
    """A convolution, a search among 50 vectors, and a map resized from 8x8 to 16x16."""

    memory_bank = ("bank",)

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Conv2d(3, 6, 2, stride=2, bias=False)
        self.register_buffer("bank", torch.rand(50, 6))
        self.register_buffer("squares", self.bank.square().sum(1))
        self.resize = Resize((8, 8), (16, 16))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distances = nearest_distances(rows(self.network(images)), self.bank, self.squares)
        maps = self.resize(distances.view(-1, 8, 8))
        return maps, maps.flatten(1).amax(1)


def test_searches_and_resizing_are_counted_apart() -> None:
    costs = count_costs(Bank().eval(), torch.rand(1, 3, 16, 16))
    assert costs.flops == 2 * 64 * 6 * 3 * 2 * 2
    assert costs.search_flops == 2 * 64 * 50 * 6 + 64  # and a sum each
    assert costs.parameters == 6 * 3 * 2 * 2
    assert costs.memory_bank == 50 * 6


def test_convolutions_of_3x3_are_counted_apart_too() -> None:
    def conv(side: int) -> nn.Module:
        return nn.Conv2d(3, 3, side, padding=side // 2, bias=False)

    costs = count_costs(nn.Sequential(conv(3), conv(1), conv(3), conv(5)).eval(), torch.rand(1, 3, 16, 16))
    assert costs.flops_3x3 == 2 * (2 * 256 * 9 * 9)
    assert costs.flops == costs.flops_3x3 + 2 * 256 * 9 * (1 + 25)


def test_banks_of_modules_within_are_counted() -> None:
    assert memory_bank_values(nn.ModuleList([Bank(), Bank(), nn.Linear(2, 2)])) == 600


def test_nothing_counted_is_an_error_and_no_zero() -> None:
    with pytest.raises(DataError, match="has counted no floating-point operation of Identity"):
        count_costs(nn.Identity(), torch.rand(1, 3, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "flops", "parameters"), [(EfficientAdS, 75.895, 8.058), (EfficientAdM, 235.411, 20.738)]
)
def test_efficientad_costs_what_its_paper_says(method: type[EfficientAd], flops: float, parameters: float) -> None:
    state = EfficientAdNetwork(method.size, padding=False).state_dict()
    detector = method.restore(EfficientAdConfig(), state)
    costs = count_costs(detector.module(), torch.rand(1, 3, 256, 256))
    assert round(costs.flops / 1e9, 3) == flops
    assert round(costs.parameters / 1e6, 3) == parameters
    assert costs.memory_bank == costs.search_flops == 0
