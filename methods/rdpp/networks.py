"""What RD++ trains: projections, and the bottleneck and decoder of reverse distillation (Deng, Li, CVPR 2022)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

BOTTLENECK_BLOCKS = 3
DECODER_BLOCKS = (3, 4, 6)
"""Residual blocks of the decoder's stages, from the deepest: a ResNet-50's in reverse."""


class Projections(nn.ModuleList):
    """Projects each level of an encoder to features of its shape, without what is anomalous (section 3.2).

    Args:
        channels: Of the levels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(_projection(count) for count in channels)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Project levels (B, C, h, w)."""
        return [projection(level) for projection, level in zip(self, levels, strict=True)]


class Decoder(nn.Module):
    """Compresses the projected levels into one embedding, and makes the encoder's levels of it again.

    Args:
        channels: Of the levels, the finest first; each has half the height and width of the one before.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.down_fine = nn.Sequential(*_down(fine, middle), *_down(middle, coarse))
        self.down_middle = nn.Sequential(*_down(middle, coarse))
        self.bottleneck = _stage(3 * coarse, 2 * coarse, BOTTLENECK_BLOCKS, up=False)
        widths = [2 * coarse, coarse, middle, fine]
        self.stages = nn.ModuleList(
            _stage(inputs, outputs, blocks, up=True)
            for (inputs, outputs), blocks in zip(pairwise(widths), DECODER_BLOCKS, strict=True)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels of the encoder, (B, C, h, w) each, as decoded from the projected ones."""
        fine, middle, coarse = levels
        features = self.bottleneck(torch.cat([self.down_fine(fine), self.down_middle(middle), coarse], dim=1))
        decoded = []
        for stage in self.stages:
            features = stage(features)
            decoded.append(features)
        return decoded[::-1]


class Reconstruction(nn.Module):
    """Projections and decoder, one after the other.

    Args:
        channels: Of the encoder's levels, the finest first.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.projections = Projections(channels)
        self.decoder = Decoder(channels)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """What becomes of an encoder's levels, (B, C, h, w) each: of the same shapes."""
        decoded: list[Tensor] = self.decoder(self.projections(levels))
        return decoded


def _projection(channels: int) -> nn.Sequential:
    widths = [channels, channels // 2, channels // 4, channels // 2, channels]
    return nn.Sequential(
        *(
            layer
            for inputs, outputs in pairwise(widths)
            for layer in (nn.Conv2d(inputs, outputs, 3, padding=1), nn.InstanceNorm2d(outputs), nn.LeakyReLU())
        )
    )


def _down(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def _stage(inputs: int, outputs: int, blocks: int, *, up: bool) -> nn.Sequential:
    """Residual blocks, of which the first doubles height and width, or halves them."""
    first = _Residual(inputs, outputs, "up" if up else "down")
    return nn.Sequential(first, *(_Residual(outputs, outputs) for _ in range(blocks - 1)))


class _Residual(nn.Module):
    """Bottleneck block of a Wide ResNet-50-2; its convolution that doubles height and width is a transposed one."""

    def __init__(self, inputs: int, outputs: int, change: str | None = None) -> None:
        super().__init__()
        width = outputs // 2
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _resizing(width, width, change, kernel=3),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = (
            nn.Sequential(_resizing(inputs, outputs, change, kernel=1), nn.BatchNorm2d(outputs))
            if change is not None
            else nn.Identity()
        )

    def forward(self, features: Tensor) -> Tensor:
        summed: Tensor = self.layers(features) + self.shortcut(features)
        return summed.relu()


def _resizing(inputs: int, outputs: int, change: str | None, kernel: int) -> nn.Module:
    if change == "up":
        return nn.ConvTranspose2d(inputs, outputs, 2, stride=2, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, stride=2 if change else 1, padding=kernel // 2, bias=False)
