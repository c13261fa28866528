"""What DSR trains for each object: subspace restriction, object decoder, detection and upsampling (section 3.2)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from methods.dsr.vq_model import DIM, image_decoder

DECODER_BOTTLENECK = 64
DETECTION_WIDTH = 64
STANDARD_DEVIATION = 0.02
"""Of the initial weights of detector and object decoder."""


class SubspaceRestriction(nn.Module):
    """Moves quantised features to those of normal appearance, yet to be quantised; a U-net without skips."""

    def __init__(self) -> None:
        super().__init__()
        widths = [DIM, 2 * DIM, 4 * DIM]
        self.layers = nn.Sequential(
            *_convolutions(DIM, widths[0], widths[0]),
            *(layer for low, high in pairwise(widths) for layer in (nn.MaxPool2d(2), *_convolutions(low, high, high))),
            *(
                layer
                for high, low in pairwise(widths[::-1])
                for layer in (*_up(high, low), *_convolutions(low, low, low))
            ),
            nn.Conv2d(DIM, DIM, 3, padding=1),
        )

    def forward(self, quantised: Tensor) -> Tensor:
        """Features of quantised ones (B, 128, h, w), of the same shape; h and w are multiples of 4."""
        restricted: Tensor = self.layers(quantised)
        return restricted


def object_decoder() -> nn.Sequential:
    """Decoder of one object: joined features (B, 256, h, w) to images (B, 3, 4h, 4w); h and w are multiples of 4."""
    return nn.Sequential(
        *_convolutions(2 * DIM, 2 * DIM, 4 * DIM),
        nn.MaxPool2d(2),
        *_convolutions(4 * DIM, 4 * DIM, 8 * DIM),
        nn.MaxPool2d(2),
        nn.Conv2d(8 * DIM, DECODER_BOTTLENECK, 1),
        nn.ConvTranspose2d(DECODER_BOTTLENECK, DECODER_BOTTLENECK, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(DECODER_BOTTLENECK, DECODER_BOTTLENECK, 4, stride=2, padding=1),
        nn.ReLU(),
        image_decoder(DECODER_BOTTLENECK),
    )


class UNet(nn.Module):
    """U-net with skips that tells two classes apart.

    Args:
        channels: Of its input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [DETECTION_WIDTH, 2 * DETECTION_WIDTH, 4 * DETECTION_WIDTH, 4 * DETECTION_WIDTH]
        self.down = nn.ModuleList(
            nn.Sequential(*_convolutions(low, high, high)) for low, high in pairwise([channels, *widths])
        )
        self.up = nn.ModuleList(nn.Sequential(*_up(high, low)) for high, low in pairwise(widths[::-1]))
        self.merge = nn.ModuleList(nn.Sequential(*_convolutions(2 * low, low, low)) for low in widths[-2::-1])
        self.classify = nn.Conv2d(DETECTION_WIDTH, 2, 3, padding=1)
        self.halve = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 2, h, w) of inputs (B, channels, h, w); h and w are multiples of 8."""
        features, skips = images, list[Tensor]()
        for block in self.down:
            features = block(self.halve(features) if skips else features)
            skips.append(features)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            features = merge(torch.cat([up(features), skip], dim=1))
        logits: Tensor = self.classify(features)
        return logits


def initialise(*networks: nn.Module) -> None:
    """Draw the weights of all convolutions from a normal distribution."""
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0, STANDARD_DEVIATION)


def _convolutions(*channels: int) -> Sequence[nn.Module]:
    return [
        layer
        for low, high in pairwise(channels)
        for layer in (nn.Conv2d(low, high, 3, padding=1), nn.InstanceNorm2d(high), nn.ReLU())
    ]


def _up(inputs: int, outputs: int) -> Sequence[nn.Module]:
    return [nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), *_convolutions(inputs, outputs)]
