"""EfficientAD's networks with few channels: every layer there is, in a fraction of the time."""

from itertools import pairwise

import torch
from torch import nn

from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import TEACHER_CHANNELS

HIDDEN = 8


def thin_network(*, autoencoder=True, **options):
    """EfficientAD-S, its hidden layers ``HIDDEN`` channels wide; without ``autoencoder``, one convolution is its."""
    network = EfficientAdNetwork("S", **{"padding": False, **options})
    network.teacher, network.student = (_thin(layers) for layers in (network.teacher, network.student))
    network.teacher.requires_grad_(False)
    if not autoencoder:
        network.autoencoder = features_by_one_convolution(64 if network.padding else 56)
    network.std.fill_(0.1)
    return nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)


def features_by_one_convolution(side):
    """Images to features (B, 384, side, side) as from the autoencoder, which takes 256x256 pixels only."""
    return nn.Sequential(nn.Conv2d(3, TEACHER_CHANNELS, 4, stride=4), nn.AdaptiveAvgPool2d(side))


def _thin(layers):
    widths = [3] + [HIDDEN] * (sum(isinstance(layer, nn.Conv2d) for layer in layers) - 1) + [layers[-1].out_channels]
    pairs = pairwise(widths)
    return nn.Sequential(
        *(
            nn.Conv2d(*next(pairs), layer.kernel_size, padding=layer.padding) if isinstance(layer, nn.Conv2d) else layer
            for layer in layers
        )
    )


def noise(count, seed=0, side=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
