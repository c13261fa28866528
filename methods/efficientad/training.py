"""Training of EfficientAD's student and autoencoder (Batzner et al., WACV 2024, Algorithm 1)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.common.torchvision_import import import_torchvision
from methods.detector import FitContext, ImageSet, ImageSource, Progress
from methods.efficientad.networks import INPUT_SIZE, QUANTILES, EfficientAdNetwork
from methods.efficientad.pdn import TEACHER_CHANNELS, normalise
from methods.efficientad.step import step_loss
from methods.errors import MethodError

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


def teacher_targets(network: EfficientAdNetwork, images: ImageSet, context: FitContext) -> "TeacherTargets":
    """Measure the teacher's channel mean and standard deviation over all images (Algorithm 1, lines 3-10).

    Returns:
        The features computed on the way.

    Raises:
        MethodError: There are no training images.
    """
    if len(images) == 0:
        raise MethodError("EfficientAD needs at least one training image and was given none")
    targets = TeacherTargets(network, images, context.device)
    total = torch.zeros(TEACHER_CHANNELS, dtype=torch.float64)
    squares = torch.zeros_like(total)
    positions = 0
    for index in range(len(images)):
        features = targets.remember(index).double()
        total += features.sum((0, 2, 3)).cpu()
        squares += features.square().sum((0, 2, 3)).cpu()
        positions += features[0, 0].numel()
        context.progress(Progress("teacher", index + 1, len(images)))
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


class Training:
    """Training of student and autoencoder, one iteration at a time (Algorithm 1, lines 3-43).

    Args:
        network: On its device. The teacher's channel statistics are measured at once.
        images: Normal images of 256x256 pixels.
        context: Seed, device and pretraining images.
        steps: Iterations that there will be.
        options: Of the optimiser.
    """

    def __init__(
        self, network: EfficientAdNetwork, images: ImageSet, context: FitContext, steps: int, options: TrainingOptions
    ) -> None:
        import_torchvision()
        self._network = network
        self._images = images
        self._device = context.device
        self._options = options
        self._decay_after = round(0.95 * steps)
        self._generator = torch.Generator().manual_seed(context.seed)
        self._penalties = (
            penalty_images(context.photographs, context.seed, self._generator) if context.photographs else None
        )
        self._targets = teacher_targets(network, images, context)
        parameters = [*network.student.parameters(), *network.autoencoder.parameters()]
        self._optimizer = torch.optim.Adam(
            parameters, options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self._done = 0
        network.train()

    def step(self) -> Tensor:
        """Run the next iteration and return its loss."""
        if self._done == self._decay_after:
            self._optimizer.param_groups[0]["lr"] = 0.1 * self._options.learning_rate
        index = int(torch.randint(len(self._images), (), generator=self._generator))
        image = self._images[index]
        loss = step_loss(
            self._network,
            image=self._prepare(image),
            augmented=self._prepare(augment(image, self._generator)),
            penalty=self._prepare(next(self._penalties)) if self._penalties else None,
            target=self._targets(index),
            bf16=self._options.bf16,
        )
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._done += 1
        return loss.detach()

    def _prepare(self, image: Tensor) -> Tensor:
        return normalise(image[None].to(self._device))


def train_network(
    network: EfficientAdNetwork, images: ImageSet, context: FitContext, steps: int, options: TrainingOptions
) -> list[tuple[int, float]]:
    """Train student and autoencoder and leave the network in evaluation mode.

    Returns:
        About ``RECORDED_LOSSES`` pairs of step, counted from 1, and its loss.
    """
    training = Training(network, images, context, steps, options)
    losses: list[tuple[int, float]] = []
    interval = max(1, steps // RECORDED_LOSSES)
    for step in range(1, steps + 1):
        loss = training.step()
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
        float32 = np.finfo(np.float32)
        least = max(float32.eps * abs(low), float32.tiny)
        network.quantiles[row] = torch.tensor([low, max(high, low + least)])
