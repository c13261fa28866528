"""The quantised autoencoder of DSR (section 3.1): an image as two maps of codebook vectors, and back."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from methods.common.nearest import rows
from methods.common.precision import run_network

CODES = 4096
"""Vectors of a codebook."""
DIM = 128
"""Numbers per vector, and channels of the encoders."""
RESIDUAL_DIM = 64
CHUNK = 512
"""Features compared with a codebook at a time: their distances stay in a processor's cache."""


class Residual(nn.Module):
    """Residual block, whose shortcut is rectified: the official code's first rectifier works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(DIM, RESIDUAL_DIM, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(RESIDUAL_DIM, DIM, 1, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, 128, h, w), of the same shape."""
        rectified = features.relu()
        restored: Tensor = rectified + self.layers(rectified)
        return restored


def image_decoder(channels: int) -> nn.Sequential:
    """Network from features (B, channels, h, w) to an image (B, 3, 4h, 4w)."""
    return nn.Sequential(
        nn.Conv2d(channels, DIM, 3, padding=1),
        Residual(),
        Residual(),
        nn.ReLU(),
        nn.ConvTranspose2d(DIM, DIM // 2, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(DIM // 2, 3, 4, stride=2, padding=1),
    )


class Codebook(nn.Module):
    """Vectors, the nearest of which stands for a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(CODES, DIM), requires_grad=False)

    def distances(self, features: Tensor) -> Tensor:
        """Squared distances of rows (N, 128) from all vectors, less the rows' own squares, (N, 4096)."""
        vectors = self.vectors
        with torch.autocast(vectors.device.type, enabled=False):
            return torch.addmm(vectors.square().sum(1), features, vectors.T, alpha=-2)

    def nearest(self, features: Tensor) -> Tensor:
        """Number of the vector nearest to each position of features (B, 128, h, w), int64 (B, h, w)."""
        batch, _, height, width = features.shape
        chunks = rows(features.detach()).split(CHUNK)
        return torch.cat([self.distances(chunk).min(1).indices for chunk in chunks]).view(batch, height, width)

    def look_up(self, numbers: Tensor) -> Tensor:
        """Vectors (B, 128, h, w) of numbers (B, h, w)."""
        return self.vectors[numbers].permute(0, 3, 1, 2)

    def quantise(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (B, 128, h, w) nearest to features of this shape, which receive their gradients; and their numbers.

        Returns:
            The vectors, and int64 (B, h, w).
        """
        numbers = self.nearest(features)
        quantised = self.look_up(numbers)
        return features + (quantised - features).detach() if features.requires_grad else quantised, numbers

    def forward(self, features: Tensor) -> Tensor:
        """The vectors of :meth:`quantise`."""
        return self.quantise(features)[0]


@dataclass(frozen=True)
class Encoded:
    """What the encoders make of images of height H and width W.

    Attributes:
        coded: Of the fine encoder, (B, 128, H/4, W/4).
        features_lo: To be quantised, (B, 128, H/8, W/8).
        features_hi: Likewise, (B, 128, H/4, W/4).
        quantised_lo: The nearest vectors of the coarse codebook.
        quantised_hi: The nearest vectors of the fine codebook.
        codes_lo: Their numbers, (B, H/8, W/8).
        codes_hi: Likewise, (B, H/4, W/4).
    """

    coded: Tensor
    features_lo: Tensor
    features_hi: Tensor
    quantised_lo: Tensor
    quantised_hi: Tensor
    codes_lo: Tensor
    codes_hi: Tensor


class VqModel(nn.Module):
    """Two encoders, two codebooks and the general decoder; ``hi`` is the finer level, ``lo`` the coarser."""

    networks = ("encoder_hi", "encoder_lo", "to_hi", "to_lo", "upsample_lo", "decoder")

    def __init__(self) -> None:
        super().__init__()
        self.encoder_hi = nn.Sequential(
            nn.Conv2d(3, DIM // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(DIM // 2, DIM, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(DIM, DIM, 3, padding=1),
            Residual(),
            Residual(),
            nn.ReLU(),
        )
        self.encoder_lo = nn.Sequential(
            nn.Conv2d(DIM, DIM, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(DIM, DIM, 3, padding=1),
            nn.ReLU(),
            Residual(),
            Residual(),
            nn.ReLU(),
        )
        self.to_lo = nn.Conv2d(DIM, DIM, 1)
        self.to_hi = nn.Conv2d(2 * DIM, DIM, 1)
        self.codebook_lo = Codebook()
        self.codebook_hi = Codebook()
        self.upsample_lo = nn.ConvTranspose2d(DIM, DIM, 4, stride=2, padding=1)
        self.decoder = image_decoder(2 * DIM)

    def encode(self, images: Tensor) -> Encoded:
        """Features and quantised features of images (B, 3, H, W) with values from 0 to 1."""
        coded = run_network(self.encoder_hi, images)
        features_lo = run_network(self.to_lo, run_network(self.encoder_lo, coded))
        quantised_lo, codes_lo = self.codebook_lo.quantise(features_lo)
        features_hi = self.fine_features(coded, quantised_lo)
        quantised_hi, codes_hi = self.codebook_hi.quantise(features_hi)
        return Encoded(coded, features_lo, features_hi, quantised_lo, quantised_hi, codes_lo, codes_hi)

    def fine_features(self, coded: Tensor, quantised_lo: Tensor) -> Tensor:
        """Features for the fine codebook (B, 128, H/4, W/4): they depend on what the coarse one says."""
        features: Tensor = run_network(self.to_hi, torch.cat([coded, self._upsampled(quantised_lo)], dim=1))
        return features

    def join(self, quantised_lo: Tensor, quantised_hi: Tensor) -> Tensor:
        """Both levels as what a decoder takes, (B, 256, H/4, W/4)."""
        return torch.cat([self._upsampled(quantised_lo), quantised_hi], dim=1)

    def decode(self, quantised_lo: Tensor, quantised_hi: Tensor) -> Tensor:
        """Images (B, 3, H, W) that the general decoder makes of both levels."""
        images: Tensor = run_network(self.decoder, self.join(quantised_lo, quantised_hi))
        return images

    def _upsampled(self, quantised_lo: Tensor) -> Tensor:
        upsampled: Tensor = run_network(self.upsample_lo, quantised_lo)
        return upsampled
