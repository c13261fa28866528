"""The networks of GCAD (Bergmann et al., IJCV 2022) besides its teacher."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNET_MULTIPLE = 16
"""Of which an image's sides must be multiples for a :class:`UNet`."""
ENCODER_MULTIPLE = 32
"""Likewise for a :class:`GlobalAutoencoder`."""
ENCODER_CHANNELS = (32, 32, 64, 64, 64)


class UNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015) with padded convolutions: images (B, 3, H, W) to (B, out_channels, H, W).

    Args:
        out_channels: Of the output.
        width: Channels at full resolution, 64 in the original; twice as many after each of four poolings.
    """

    def __init__(self, out_channels: int, width: int = 64) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(_double(inputs, outputs) for inputs, outputs in pairwise((3, *widths)))
        rising = list(pairwise(reversed(widths)))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(inputs, outputs, 2, stride=2) for inputs, outputs in rising)
        self.up = nn.ModuleList(_double(inputs, outputs) for inputs, outputs in rising)
        self.head = nn.Conv2d(width, out_channels, 1)
        _initialise(self)
        nn.init.zeros_(self.head.weight)  # targets are of mean zero: begin there, not at numbers to be unlearned
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Run the network on normalised images whose sides are multiples of ``UNET_MULTIPLE``."""
        features = images.contiguous(memory_format=torch.channels_last)
        levels = []
        for number, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if number else features)
            levels.append(features)
        levels.pop()
        for grow, block in zip(self.grow, self.up, strict=True):
            features = block(torch.cat([levels.pop(), grow(features)], dim=1))
        outputs: Tensor = self.head(features)
        return outputs


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
    )


class GlobalAutoencoder(nn.Module):
    """E_glo: an image through a bottleneck of few numbers to maps of its own size (B, out_channels, H, W).

    The encoder is that of EfficientAD's autoencoder (Table 7 there), which simplifies this one; the decoder mirrors it
    with transposed convolutions. While skip connections are switched on, each level of the encoder is added to the
    decoder's of the same size, so that what the decoder learns first does not have to go through the bottleneck.

    Args:
        size: Height and width of the images, multiples of ``ENCODER_MULTIPLE``.
        bottleneck: Numbers in it.
        out_channels: Of the maps.
    """

    def __init__(self, size: tuple[int, int], bottleneck: int, out_channels: int) -> None:
        super().__init__()
        channels = ENCODER_CHANNELS
        grid = (size[0] // ENCODER_MULTIPLE, size[1] // ENCODER_MULTIPLE)
        self.down = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1) for inputs, outputs in pairwise((3, *channels))
        )
        self.squeeze = nn.Conv2d(channels[-1], bottleneck, grid)
        self.expand = nn.ConvTranspose2d(bottleneck, channels[-1], grid)
        rising = (*reversed(channels), channels[0])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1) for inputs, outputs in pairwise(rising)
        )
        self.head = nn.Conv2d(channels[0], out_channels, 3, padding=1)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)

    def forward(self, images: Tensor, skips: float = 0.0) -> Tensor:
        """Run the network on normalised images (B, 3, H, W).

        Args:
            images: Of the size that the network is made for.
            skips: Weight of the skip connections, between 0 and 1.
        """
        features = images.contiguous(memory_format=torch.channels_last)
        levels = []
        for layer in self.down:
            features = F.relu(layer(features))
            levels.append(features)
        features = F.relu(self.expand(self.squeeze(features)))
        for level, layer in zip(reversed(levels), self.up, strict=True):
            features = F.relu(layer(features + skips * level if skips else features))
        maps: Tensor = self.head(features)
        return maps


def _initialise(network: nn.Module) -> None:
    """Draw weights such that maps keep their variance from layer to layer, as U-Net's paper has it."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            read = layer.in_channels * math.prod(layer.kernel_size)
            if isinstance(layer, nn.ConvTranspose2d):
                read //= math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / read))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def channel_upsampling(inputs: int, outputs: int) -> nn.Sequential:
    """U: maps of E_glo (B, inputs, H, W) to descriptors (B, outputs, H, W), each position by itself."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True), nn.Conv2d(outputs, outputs, 1))
