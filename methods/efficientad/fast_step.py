"""The training iteration of :mod:`methods.efficientad.step` for a CPU: what no loss reads is not computed.

What is left out changes no result beyond rounding (Batzner et al., WACV 2024, Algorithm 1, lines 14-38):

* The student's last layer computes for each image only the half of the channels that its loss reads.
* The hard feature loss has a gradient at a thousandth of the outputs, so the last layer is differentiated at those.
* Unpadded networks never read the last three rows and columns of an image.
* Convolutions take fewer multiplications, and ReLU and pooling share one pass over memory.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.common.precision import TrainingPrecision, autocast
from methods.efficientad import winograd
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import TEACHER_CHANNELS
from methods.efficientad.step import HARD_QUANTILE, hard_elements

SINGLE_OUTPUTS_FROM = 0.995
"""From this quantile on, the last layer is differentiated at its hard outputs one by one; below, these are too many."""


def step_loss(
    network: EfficientAdNetwork,
    image: Tensor,
    augmented: Tensor,
    penalty: Tensor | None,
    target: Tensor,
    precision: TrainingPrecision,
    p_hard: float = HARD_QUANTILE,
) -> Tensor:
    """Total loss of one iteration; see :func:`methods.efficientad.step.step_loss`."""
    batch = torch.cat([image, augmented] if penalty is None else [image, augmented, penalty])
    assert isinstance(network.student, nn.Sequential)
    last = network.student[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    one_by_one = p_hard >= SINGLE_OUTPUTS_FROM
    first, second = slice(TEACHER_CHANNELS), slice(TEACHER_CHANNELS, None)
    with autocast(image.device, precision):
        with torch.no_grad():
            augmented_target = network.target(training_outputs(network.teacher, augmented, padding=network.padding))
        features = training_features(network.student, batch, padding=network.padding)
        with torch.set_grad_enabled(not one_by_one):
            student = winograd.conv2d(features[:1], last.weight[first], last.bias[first]).float()
        of_autoencoder = winograd.conv2d(features[1:2], last.weight[second], last.bias[second]).float()
        decoded = network.autoencoder(augmented).float()
        # An empty batch without a penalty.
        on_penalty = winograd.conv2d(features[2:], last.weight[first], last.bias[first]).float()

    student = student.permute(0, 2, 3, 1).flatten()
    flat_target = target.permute(0, 2, 3, 1).flatten()
    hard = hard_elements((flat_target - student.detach()).square(), p_hard)
    student_hard = _outputs_at(features[:1], last, hard) if one_by_one else student[hard]
    loss: Tensor = (flat_target[hard] - student_hard).square().mean()
    loss = loss + (augmented_target - decoded).square().mean() + (decoded - of_autoencoder).square().mean()
    return loss if penalty is None else loss + on_penalty.square().mean()


def training_outputs(network: nn.Sequential, images: Tensor, *, padding: bool) -> Tensor:
    """``network(images)`` up to rounding; see :func:`training_features`."""
    last = network[-1]
    assert isinstance(last, nn.Conv2d)
    return winograd.conv2d(training_features(network, images, padding=padding), last.weight, last.bias)


def training_features(network: nn.Sequential, images: Tensor, *, padding: bool) -> Tensor:
    """All layers of a patch description network but the last, rearranged so that a CPU differentiates them faster.

    The same numbers as ``network[:-1](images)`` up to rounding. Convolutions are padded by hand.

    Args:
        network: As :func:`methods.efficientad.pdn.patch_description_network` built it.
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


def _outputs_at(features: Tensor, layer: nn.Conv2d, indices: Tensor) -> Tensor:
    """Single outputs of an unpadded convolution's first 384 channels, float32.

    Args:
        features: Its input, (1, C, h, w).
        layer: The convolution.
        indices: Into its output in the order (row, column, channel), flattened.
    """
    assert layer.bias is not None
    side = layer.kernel_size[0]
    width = features.shape[3]
    position, channel = indices // TEACHER_CHANNELS, indices % TEACHER_CHANNELS
    columns = width - side + 1
    corner = position // columns * width + position % columns
    offsets = torch.arange(side, device=indices.device)
    taps = corner[:, None] + (offsets[:, None] * width + offsets).flatten()
    vectors = F.embedding(taps, features.permute(0, 2, 3, 1).flatten(0, 2)).float()
    kernels = F.embedding(channel, layer.weight.permute(0, 2, 3, 1).flatten(1))
    return (vectors.flatten(1) * kernels).sum(1) + layer.bias[channel]
