"""One training iteration of EfficientAD, with every product that no loss reads left out.

What is left out changes no result beyond rounding (Batzner et al., WACV 2024, Algorithm 1, lines 14-38):

* The student runs once on all images of the iteration, and its last layer computes for each image only the half of
  the channels that its loss reads.
* The hard feature loss has a gradient at a thousandth of the outputs, so the last layer is differentiated at those.
* Unpadded networks never read the last three rows and columns of an image.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.efficientad import winograd
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import TEACHER_CHANNELS, training_features, training_outputs

HARD_QUANTILE = 0.999


def hard_elements(differences: Tensor, quantile: float = HARD_QUANTILE) -> Tensor:
    """Flat indices of the elements that are at least the ``quantile`` of all (Algorithm 1, lines 19 and 20).

    The quantile lies between two neighbours in sorted order, so the elements that reach it are those that reach the
    upper neighbour: a selection of the largest is enough, no interpolation and no full sort.
    """
    flat = differences.flatten()
    count = len(flat) - math.ceil(quantile * (len(flat) - 1))
    return (flat >= flat.topk(count).values[-1]).nonzero().squeeze(1)


def step_loss(
    network: EfficientAdNetwork, image: Tensor, augmented: Tensor, penalty: Tensor | None, target: Tensor, bf16: bool
) -> Tensor:
    """Total loss of one iteration (Algorithm 1, lines 14-38).

    Args:
        network: In training mode.
        image: Training image, normalised, (1, 3, 256, 256).
        augmented: The same, augmented.
        penalty: Pretraining image, or ``None`` for no penalty.
        target: Normalised teacher features (1, 384, h, w) of ``image``.
        bf16: Run the networks under bfloat16 autocast; losses are float32 always.
    """
    images = [image, augmented] if penalty is None else [image, augmented, penalty]
    batch = torch.cat(images).contiguous(memory_format=torch.channels_last)
    last = network.student[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    first, second = slice(TEACHER_CHANNELS), slice(TEACHER_CHANNELS, None)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        with torch.no_grad():
            augmented_target = network.target(training_outputs(network.teacher, batch[1:2], padding=network.padding))
        features = training_features(network.student, batch, padding=network.padding)
        with torch.no_grad():
            student = winograd.conv2d(features[:1], last.weight[first], last.bias[first]).float()
        of_autoencoder = winograd.conv2d(features[1:2], last.weight[second], last.bias[second]).float()
        decoded = network.autoencoder(batch[1:2]).float()
        # An empty batch without a penalty.
        on_penalty = winograd.conv2d(features[2:], last.weight[first], last.bias[first]).float()

    hard = hard_elements((target - student).square().permute(0, 2, 3, 1))
    student_hard = _outputs_at(features[:1], last, hard)
    loss: Tensor = (target.permute(0, 2, 3, 1).flatten()[hard] - student_hard).square().mean()
    loss = loss + (augmented_target - decoded).square().mean() + (decoded - of_autoencoder).square().mean()
    return loss if penalty is None else loss + on_penalty.square().mean()


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
