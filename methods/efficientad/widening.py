"""A patch description network of Table 6 that starts as one of Table 5 (Batzner et al., WACV 2024)."""

import torch
from torch import Tensor, nn

LOWEST = 4.0
"""What outputs are raised by to pass the last ReLU, and lowered by afterwards: normalised features lie above -4."""


@torch.no_grad()
def widen(small: nn.Sequential, medium: nn.Sequential) -> None:
    """Make EfficientAD-M's network compute what EfficientAD-S's does, as far as that lies above ``-LOWEST``.

    As in Net2Net (Chen, Goodfellow, Shlens, ICLR 2016), but the channels that S lacks keep their random weights, and
    nothing reads them yet: then no two channels are alike, and each learns from the first step.

    Args:
        small: Of size S.
        medium: Of size M, with as many output channels; changed in place.
    """
    first, second, third, last = (layer for layer in small if isinstance(layer, nn.Conv2d))
    wide = [layer for layer in medium if isinstance(layer, nn.Conv2d)]
    _take(wide[0], first)
    _take(wide[1], second)
    _take_identity(wide[2], second.out_channels)  # of what is not negative, so that its ReLU changes nothing
    _take(wide[3], third)
    _take(wide[4], last)
    _bias(wide[4]).add_(LOWEST)
    _take_identity(wide[5], last.out_channels)
    _bias(wide[5]).sub_(LOWEST)


def _take(wide: nn.Conv2d, narrow: nn.Conv2d) -> None:
    """Let the first outputs be those of ``narrow``, of the first inputs alone."""
    outputs, inputs = narrow.weight.shape[:2]
    wide.weight[:outputs] = 0
    wide.weight[:outputs, :inputs] = narrow.weight
    _bias(wide)[:outputs] = _bias(narrow)


def _take_identity(wide: nn.Conv2d, channels: int) -> None:
    """Let the first outputs of a 1x1 convolution be its first inputs."""
    wide.weight[:channels] = 0
    wide.weight[:channels, :channels, 0, 0] = torch.eye(channels)
    _bias(wide)[:channels] = 0


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias
