"""Training of EfficientAD's student and autoencoder (Batzner et al., WACV 2024, Algorithm 1)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.detector import FitContext, ImageSet, ImageSource, Progress
from methods.efficientad_network import INPUT_SIZE, QUANTILES, EfficientAdNetwork
from methods.errors import MethodError
from methods.pdn import TEACHER_CHANNELS, normalise
from methods.torchvision_import import import_torchvision

HARD_QUANTILE = 0.999
TEACHER_CACHE_BYTES = 2 * 2**30
"""Memory for the teacher's features of training images: about 440 images unpadded in float32."""
PENALTY_IMAGES = 2048
"""Pretraining images held in memory at a time, 400 MB; as many steps later others take their place."""
RECORDED_LOSSES = 500
REPORT_EVERY = 5


@dataclass(frozen=True)
class TrainingOptions:
    """What a step depends on besides the images.

    Attributes:
        learning_rate: Of Adam, for the first 95 % of the steps; a tenth of it afterwards.
        weight_decay: Of Adam.
        bf16: Whether the networks run under bfloat16 autocast.
    """

    learning_rate: float
    weight_decay: float
    bf16: bool


def hard_elements(differences: Tensor, quantile: float = HARD_QUANTILE) -> Tensor:
    """Flat indices of the elements that are at least the ``quantile`` of all (Algorithm 1, lines 19 and 20).

    The quantile lies between two neighbours in sorted order, so the elements that reach it are those that reach the
    upper neighbour: a selection of the largest is enough, no interpolation and no full sort.
    """
    flat = differences.flatten()
    count = len(flat) - math.ceil(quantile * (len(flat) - 1))
    return (flat >= flat.topk(count).values[-1]).nonzero().squeeze(1)


def teacher_targets(network: EfficientAdNetwork, images: ImageSet, device: torch.device) -> "TeacherTargets":
    """Set the network's channel mean and standard deviation; keep the features computed on the way."""
    targets = TeacherTargets(network, images, device)
    total = torch.zeros(TEACHER_CHANNELS, dtype=torch.float64)
    squares = torch.zeros_like(total)
    positions = 0
    for index in range(len(images)):
        features = targets.remember(index).double()
        total += features.sum((0, 2, 3)).cpu()
        squares += features.square().sum((0, 2, 3)).cpu()
        positions += features[0, 0].numel()
    mean = total / positions
    # In float64 the difference of squares loses nothing that float32 features held.
    std = (squares / positions - mean.square()).clamp_min(0).sqrt()
    network.mean.copy_(mean.view(1, -1, 1, 1))
    network.std.copy_(std.clamp_min(1e-6).view(1, -1, 1, 1))
    return targets


class TeacherTargets:
    """The teacher's normalised features of training images (Algorithm 1, lines 14 and 15).

    They never change, so as many as fit in ``TEACHER_CACHE_BYTES`` are kept.
    """

    def __init__(self, network: EfficientAdNetwork, images: ImageSet, device: torch.device) -> None:
        self._network = network
        self._images = images
        self._device = device
        self._kept: list[Tensor] = []

    def remember(self, index: int) -> Tensor:
        """The teacher's output for image ``index``, the next one in order; kept while there is room."""
        features = self._compute(index)
        if (index + 1) * features.nbytes <= TEACHER_CACHE_BYTES:
            self._kept.append(features)
        return features

    def __call__(self, index: int) -> Tensor:
        """Normalised features (1, 384, h, w) of image ``index``."""
        return self._network.target(self._kept[index] if index < len(self._kept) else self._compute(index))

    @torch.no_grad()
    def _compute(self, index: int) -> Tensor:
        images = normalise(self._images[index : index + 1].to(self._device))
        return self._network.teacher(images.to(memory_format=torch.channels_last))  # type: ignore[no-any-return]


def augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast or saturation of a uint8 image (3, H, W) by U(0.8, 1.2) (lines 23-28)."""
    from torchvision.transforms.v2 import functional as transforms

    change = (transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation)
    choice = int(torch.randint(3, (), generator=generator))
    changed: Tensor = change[choice](image, 0.8 + 0.4 * float(torch.rand((), generator=generator)))
    return changed


def penalty_images(photographs: ImageSource, seed: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield pretraining images P, uint8 (3, 256, 256), without end (line 21 and its comment).

    Raises:
        MethodError: There are no photographs.
    """
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    chunk = 0
    pool: ImageSet | None = None
    while True:
        if pool is None or len(pool) == PENALTY_IMAGES:  # fewer are all that there are
            pool = photographs.images(
                (512, 512), center_crop=INPUT_SIZE, limit=PENALTY_IMAGES, seed=seed * 1_000_003 + chunk
            )
            chunk += 1
        if len(pool) == 0:
            raise MethodError(f"no photographs for the pretraining penalty in {photographs.identity}")
        for _ in range(PENALTY_IMAGES):
            image = pool[int(torch.randint(len(pool), (), generator=generator))]
            gray = float(torch.rand((), generator=generator)) < 0.3
            yield rgb_to_grayscale(image, num_output_channels=3) if gray else image


def step_loss(
    network: EfficientAdNetwork, image: Tensor, augmented: Tensor, penalty: Tensor | None, target: Tensor, bf16: bool
) -> Tensor:
    """Total loss of one iteration (Algorithm 1, lines 14-38).

    One pass of the student's body serves all images; of its last layer each image needs only the half that its loss
    reads.

    Args:
        network: In training mode.
        image: Training image, normalised, (1, 3, 256, 256).
        augmented: The same, augmented.
        penalty: Pretraining image, or ``None`` for no penalty.
        target: Normalised teacher features (1, 384, h, w) of ``image``.
        bf16: Run the networks under bfloat16 autocast.
    """
    body, last = network.student[:-1], network.student[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    first = [image] if penalty is None else [image, penalty]
    batch = torch.cat([*first, augmented]).contiguous(memory_format=torch.channels_last)
    with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
        with torch.no_grad():
            augmented_target = network.teacher(batch[-1:])
        features = body(batch)
        student = F.conv2d(features[:-1], last.weight[:TEACHER_CHANNELS], last.bias[:TEACHER_CHANNELS])
        of_autoencoder = F.conv2d(features[-1:], last.weight[TEACHER_CHANNELS:], last.bias[TEACHER_CHANNELS:])
        decoded = network.autoencoder(batch[-1:]).float()

    differences = (target - student[:1].float()).square()
    loss: Tensor = differences.flatten()[hard_elements(differences.detach())].mean()
    loss = loss + (network.target(augmented_target) - decoded).square().mean()
    loss = loss + (decoded - of_autoencoder.float()).square().mean()
    if penalty is not None:
        loss = loss + student[1:].float().square().mean()
    return loss


def train_network(
    network: EfficientAdNetwork, images: ImageSet, context: FitContext, steps: int, options: TrainingOptions
) -> list[tuple[int, float]]:
    """Train student and autoencoder (Algorithm 1, lines 3-43).

    Returns:
        About ``RECORDED_LOSSES`` pairs of step, counted from 1, and its loss.
    """
    import_torchvision()
    generator = torch.Generator().manual_seed(context.seed)
    photographs = context.photographs
    penalties = penalty_images(photographs, context.seed, generator) if photographs else None
    network.eval()
    targets = teacher_targets(network, images, context.device)
    parameters = [*network.student.parameters(), *network.autoencoder.parameters()]
    optimizer = torch.optim.Adam(parameters, options.learning_rate, weight_decay=options.weight_decay, fused=True)
    network.student.train()
    network.autoencoder.train()

    def prepare(image: Tensor) -> Tensor:
        return normalise(image[None].to(context.device))

    losses: list[tuple[int, float]] = []
    interval = max(1, steps // RECORDED_LOSSES)
    for step in range(1, steps + 1):
        index = int(torch.randint(len(images), (), generator=generator))
        image = images[index]
        augmented = prepare(augment(image, generator))
        penalty = prepare(next(penalties)) if penalties else None
        if step - 1 == round(0.95 * steps):
            optimizer.param_groups[0]["lr"] = 0.1 * options.learning_rate
        loss = step_loss(network, prepare(image), augmented, penalty, targets(index), options.bf16)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % interval == 0 or step == 1:
            losses.append((step, loss.item()))
        if step % REPORT_EVERY == 0 or step == steps:
            context.progress(Progress("train", step, steps, losses[-1][1]))
    network.eval()
    return losses


@torch.inference_mode()
def measure_quantiles(
    network: EfficientAdNetwork, validation: ImageSet, context: FitContext, options: TrainingOptions
) -> None:
    """Set the network's map quantiles from all pixels of all validation maps (Algorithm 1, lines 44-57).

    Raises:
        MethodError: There are no validation images.
    """
    if len(validation) == 0:
        raise MethodError("EfficientAD normalises its maps on validation images and was given none")
    maps = []
    for done, batch in enumerate(validation.batches(1), start=1):
        images = normalise(batch.to(context.device)).to(memory_format=torch.channels_last)
        with torch.autocast(context.device.type, torch.bfloat16, enabled=options.bf16):
            maps.append(network.resize(torch.stack(network.feature_maps(images))).cpu())
        context.progress(Progress("normalise", done, len(validation)))
    for row, values in enumerate(torch.stack(maps, dim=1).flatten(1).numpy()):
        low, high = np.quantile(values, QUANTILES)
        # Equal quantiles, of constant maps, would divide by zero.
        network.quantiles[row] = torch.tensor([low, max(high, low + np.finfo(np.float32).tiny)])
