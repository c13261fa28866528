"""The patch description network of EfficientAD (Batzner et al., WACV 2024, Tables 5 and 6)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.common.backbones import IMAGENET_MEAN, IMAGENET_STD
from methods.efficientad import winograd

TEACHER_CHANNELS = 384
"""Channels of the teacher's output; the student has twice as many (Algorithm 1, line 1)."""
RECEPTIVE_FIELD = 33
"""Side in pixels of the image patch that one output vector describes."""

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


def normalise(images: Tensor) -> Tensor:
    """ImageNet-normalise RGB images (B, 3, H, W), uint8 or float 0-255, as each network of EfficientAD expects."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(3, 1, 1)
    return (images.float() - 255 * mean) / (255 * std)


def training_features(network: nn.Sequential, images: Tensor, *, padding: bool) -> Tensor:
    """All layers of a patch description network but the last, rearranged so that a CPU differentiates them faster.

    The same numbers as ``network[:-1](images)`` up to rounding. Convolutions run in fewer multiplications and are
    padded by hand, ReLU and pooling share one pass over memory, and rows that no output of an unpadded network reads
    are left out.

    Args:
        network: As :func:`patch_description_network` built it.
        images: Normalised images (B, 3, H, W); H and W multiples of 4.
        padding: Whether the network was built with padding.
    """
    if not padding:
        images = images[..., : images.shape[2] - 3, : images.shape[3] - 3]
    features = images
    for convolution in (network[0], network[3]):
        assert isinstance(convolution, nn.Conv2d)
        if padding:
            # A row and a column more than the convolution's own padding: the pooling's zeros before the first ones.
            features = F.pad(features, (4, 3, 4, 3))
        maps = winograd.conv2d(features, convolution.weight, convolution.bias)
        features = _ReluPool.apply(maps, padding)[0]  # type: ignore[no-untyped-call]
    for layer in list(network)[6:-1]:
        if isinstance(layer, nn.Conv2d):
            border = int(layer.padding[0])
            features = winograd.conv2d(F.pad(features, 4 * (border,)), layer.weight, layer.bias)
        else:
            features = layer(features)
    return features


def training_outputs(network: nn.Sequential, images: Tensor, *, padding: bool) -> Tensor:
    """The same for all layers: ``network(images)`` up to rounding."""
    last = network[-1]
    assert isinstance(last, nn.Conv2d)
    return winograd.conv2d(training_features(network, images, padding=padding), last.weight, last.bias)


class _ReluPool(torch.autograd.Function):
    """ReLU and 2x2 average pooling of maps with even sides, with one pass over memory backward.

    With ``border``, the first row and column count as zeros: they stand for the pooling's padding.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, border: bool) -> tuple[Tensor, Tensor]:
        maps.relu_()
        if border:
            maps[:, :, 0] = 0
            maps[:, :, :, 0] = 0
        ctx.mark_dirty(maps)
        ctx.save_for_backward(maps)
        ctx.set_materialize_grads(False)
        return F.avg_pool2d(maps, 2), maps

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor, None]:
        (maps,) = ctx.saved_tensors
        height, width = gradient.shape[2:]
        blocks = maps.unflatten(2, (height, 2)).unflatten(4, (width, 2))
        quarter = (gradient * 0.25)[:, :, :, None, :, None]
        spread: Tensor = torch.ops.aten.threshold_backward(quarter, blocks, 0)
        return spread.flatten(4, 5).flatten(2, 3), None
