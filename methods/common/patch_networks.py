"""Networks that describe patches, at every pixel of an image (Bergmann et al., CVPR 2020): teachers and students."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PatchSize = Literal[17, 33, 65]
DESCRIPTOR_CHANNELS = 128
SLOPE = 5e-3
"""Of the activations, for negative numbers."""
LAYERS: dict[PatchSize, tuple[tuple[int, int] | None, ...]] = {
    17: ((6, 128), (5, 256), (5, 256), (4, 128)),
    33: ((5, 128), None, (5, 256), None, (2, 256), (4, 128)),
    65: ((5, 128), None, (5, 128), None, (5, 128), None, (4, 256), (1, 128)),
}
"""Side of the kernel and channels of each convolution, and ``None`` for poolings of 2x2, by side of the patch.

The published tables contradict themselves in first and last kernels. These make one descriptor of one patch, which the
method needs; of the three variants of p = 65 that are around, it is the one that does without padding.
"""


class PatchNetwork(nn.Module):
    """Describes the patch around each pixel, or around every so many, in one pass.

    On one patch, all convolutions and poolings follow one another as in ``LAYERS``. To have that of each patch of an
    image, poolings keep their resolution instead of halving it, and what comes after has its kernels widened by holes
    as many times: the same products of the same numbers, without computing those that patches share again.

    Args:
        patch_size: Side of a patch in pixels, a key of ``LAYERS``.
        stride: Pixels from one descriptor to the next, a power of two: 1 for all of them.

    Attributes:
        layers: The network without padding: images (B, 3, h, w) to descriptors of the patches inside.
    """

    def __init__(self, patch_size: PatchSize, stride: int = 1) -> None:
        super().__init__()
        layers = LAYERS[patch_size]
        parts: list[nn.Module] = []
        channels, reach = 3, 1
        spacing, left_over = 1, stride  # pixels from one number of a map to the next one that belongs to its patch
        for number, layer in enumerate(layers, start=1):
            kernel, outputs = layer or (2, channels)
            reach += (kernel - 1) * spacing
            dilation = spacing * left_over // stride
            if layer is None:
                step = min(2, left_over)
                parts.append(nn.MaxPool2d(kernel, step, dilation=dilation))
                spacing, left_over = 2 * spacing, left_over // step
            elif number < len(layers):
                parts += [nn.Conv2d(channels, outputs, kernel, dilation=dilation), nn.LeakyReLU(SLOPE, inplace=True)]
            else:
                parts.append(nn.Conv2d(channels, outputs, kernel, stride=left_over, dilation=dilation))
            channels = outputs
        self.layers = nn.Sequential(*parts)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)
        before = patch_size // 2 - stride // 2
        self._padding = before, reach - stride - before

    def forward(self, images: Tensor) -> Tensor:
        """Descriptors (B, 128, H / stride, W / stride) of normalised images (B, 3, H, W), reflected at their borders.

        A descriptor is that of the patch whose centre is its pixel or, if the stride is not 1, pixel ``stride // 2`` of
        the square of ``stride`` pixels that it stands for.
        """
        padded = F.pad(images, 2 * self._padding, mode="reflect")
        descriptors: Tensor = self.layers(padded.contiguous(memory_format=torch.channels_last))
        return descriptors


def patch_stride(patch_size: PatchSize) -> int:
    """Stride at which a network's poolings all halve the resolution, as they do on one patch."""
    return 1 << LAYERS[patch_size].count(None)
