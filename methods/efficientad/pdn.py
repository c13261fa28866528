"""The patch description network of EfficientAD (Batzner et al., WACV 2024, Tables 5 and 6)."""

from typing import Literal

from torch import nn

TEACHER_CHANNELS = 384
"""Channels of the teacher's output; the student has twice as many (Algorithm 1, line 1)."""
RECEPTIVE_FIELD = 33
"""Side in pixels of the image patch that one output vector describes."""
STRIDE = 4
"""Distance in pixels between the patches of neighbouring output vectors."""
MARGIN = 4
"""Rows and columns of the padded network's output, at each side, that the unpadded network does not have."""

Size = Literal["S", "M"]


def patch_description_network(size: Size, out_channels: int, *, padding: bool) -> nn.Sequential:
    """Build the network: normalised images (B, 3, H, W) to features (B, out_channels, h, w) at stride 4.

    Args:
        size: ``S`` for Table 5, ``M`` for Table 6.
        out_channels: 384 for the teacher, 768 for the student.
        padding: Pad as the tables say (256x256 pixels give 64x64 features), or nowhere (56x56). The unpadded
            features are the inner 56x56 of the padded ones: padding changes the border only.
    """
    pad = int(padding)
    hidden = {"S": 128, "M": 256}[size]
    stem = [
        nn.Conv2d(3, hidden, 4, padding=3 * pad),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=pad),
        nn.Conv2d(hidden, 2 * hidden, 4, padding=3 * pad),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2, 2, padding=pad),
    ]
    if size == "S":
        head = [
            nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=pad),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * hidden, out_channels, 4),
        ]
    else:
        head = [
            nn.Conv2d(2 * hidden, 2 * hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=pad),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * hidden, out_channels, 4),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 1),
        ]
    return nn.Sequential(*stem, *head)
