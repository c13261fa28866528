"""Training of EfficientAD's student and autoencoder (Batzner et al., WACV 2024, Algorithm 1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from methods.common.colour_jitter import colour_jitter
from methods.common.frozen_features import FrozenFeatures, measured_features
from methods.common.precision import TrainingPrecision
from methods.common.resident_images import ResidentImages
from methods.common.torchvision_import import import_torchvision
from methods.common.training import train
from methods.detector import FitContext, ImageSet, Progress
from methods.efficientad import fast_step, step
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import TEACHER_CHANNELS
from methods.efficientad.penalty import PenaltyImages
from methods.efficientad.step import HARD_QUANTILE, StepLoss, StepName

TEACHER_CACHE_BYTES = 2 * 2**30
"""Of the device, for the teacher's features of training images: about 440 images unpadded in float32."""
IMAGE_BYTES = 2 * 2**30
"""Of a device other than the CPU, for training images: about 10 900."""

QUANTILES = (0.9, 0.995)
"""Levels a and b that the map normalisation aligns with 0 and 0.1 (Algorithm 1, lines 56 and 57)."""

JITTER = 0.2
"""Greatest change of a training image for the autoencoder (Algorithm 1, lines 23-28)."""

Augmentation = Literal["autoencoder", "both", "none"]
MapNormalisation = Literal["quantiles", "mean_std", "none"]

STEPS: Mapping[StepName, StepLoss] = {"reference": step.step_loss, "fast": fast_step.step_loss}


@dataclass(frozen=True)
class TrainingOptions:
    """What a step depends on besides the images.

    Attributes:
        learning_rate: Of Adam, for the first 95 % of the steps; a tenth of it afterwards.
        weight_decay: Of Adam.
        precision: Of the networks: ``bf16`` runs them under bfloat16 autocast.
        step: Which of the two ways to the same loss.
        p_hard: Which quantile of the student's squared differences its loss starts from.
        penalty: Whether pretraining images, if there are any, hinder the student (line 21).
        augmentation: Of whose training images colours are changed: ``autoencoder``, its and those of the student that
            imitates it; ``both``, also those on which the student imitates the teacher; ``none``.
    """

    learning_rate: float
    weight_decay: float
    precision: TrainingPrecision
    step: StepName
    p_hard: float = HARD_QUANTILE
    penalty: bool = True
    augmentation: Augmentation = "autoencoder"


def teacher_targets(network: EfficientAdNetwork, images: ImageSet, context: FitContext) -> FrozenFeatures:
    """Measure the teacher's channel mean and standard deviation over all images (Algorithm 1, lines 3-10).

    Returns:
        The features computed on the way, not normalised.
    """
    features, mean, std = measured_features(
        lambda batch: network.teacher(network.prepare(batch)), TEACHER_CHANNELS, images, context, TEACHER_CACHE_BYTES
    )
    network.mean.copy_(mean)
    network.std.copy_(std)
    return features


class Training:
    """Training of student and autoencoder, one iteration at a time (Algorithm 1, lines 3-43).

    A context manager: at its end nothing reads photographs any more.

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
        self._options = options
        self._decay_after = round(0.95 * steps)
        self._generator = torch.Generator().manual_seed(context.seed)
        self._features = teacher_targets(network, images, context)
        self._images = ResidentImages(images, context.device, IMAGE_BYTES)
        self._optimizer = torch.optim.Adam(
            [*network.student.parameters(), *network.autoencoder.parameters()],
            options.learning_rate,
            weight_decay=options.weight_decay,
            fused=True,
        )
        self._penalties = (
            PenaltyImages(context.photographs, context.seed, context.device, steps)
            if context.photographs and options.penalty
            else None
        )
        self._done = 0
        network.train()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._penalties is not None:
            self._penalties.close()

    def step(self) -> Tensor:
        """Run the next iteration and return its loss, detached."""
        if self._done == self._decay_after:
            self._optimizer.param_groups[0]["lr"] = 0.1 * self._options.learning_rate
        # Which numbers are drawn in which order decides what is trained.
        index = int(torch.randint(len(self._images), (), generator=self._generator))
        image = self._network.prepare(self._images[index][None])
        augmented = self._network.prepare(colour_jitter(self._images[index], JITTER, self._generator)[None])
        penalty = self._penalties.draw(self._generator) if self._penalties else None
        if self._options.augmentation == "both":
            image = augmented
            with torch.no_grad():
                features = self._network.teacher(image)
        else:
            (features,) = self._features[[index]]
        loss = STEPS[self._options.step](
            self._network,
            image=image,
            augmented=image if self._options.augmentation == "none" else augmented,
            penalty=None if penalty is None else self._network.prepare(penalty[None]),
            target=self._network.target(features),
            precision=self._options.precision,
            p_hard=self._options.p_hard,
        )
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._done += 1
        return loss.detach()


def train_network(
    network: EfficientAdNetwork, images: ImageSet, context: FitContext, steps: int, options: TrainingOptions
) -> list[tuple[int, float]]:
    """Train student and autoencoder and leave the network in evaluation mode, without gradients.

    Returns:
        Pairs of step, counted from 1, and its loss; see :func:`methods.common.training.train`.
    """
    with Training(network, images, context, steps, options) as training:
        losses = train(training.step, steps, context)
    network.zero_grad()
    network.eval().requires_grad_(False)
    return losses


@torch.no_grad()
def measure_normalisation(
    network: EfficientAdNetwork,
    validation: ImageSet,
    context: FitContext,
    kind: MapNormalisation = "quantiles",
    levels: tuple[float, float] = QUANTILES,
) -> None:
    """Set which values of the network's maps become 0 and 0.1, from all pixels of all validation maps.

    Args:
        network: Trained.
        validation: Images of which nothing has been learnt.
        context: Is told how far it is.
        kind: ``quantiles``, those of the levels a and b (Algorithm 1, lines 44-57); ``mean_std``, the mean and a tenth
            of a standard deviation more, so that the maps have mean 0 and variance 1, as GCAD's (section 4);
            ``none``, 0 and 0.1.
        levels: a and b.
    """
    if kind == "none":
        return
    maps = []
    for done, batch in enumerate(validation.batches(1), start=1):
        maps.append(network.measured_maps(network.prepare(batch.to(context.device))).cpu())
        context.progress(Progress("normalise", done, len(validation)))
    for row, values in enumerate(torch.cat(maps, dim=1).flatten(1).numpy()):
        if kind == "quantiles":
            low, high = np.quantile(values, levels)
        else:
            low = values.mean(dtype=np.float64)
            high = low + 0.1 * values.std(dtype=np.float64)
        # Equal ones, of constant maps, would divide by zero.
        float32 = np.finfo(np.float32)
        least = max(float32.eps * abs(low), float32.tiny)
        network.quantiles[row] = torch.tensor([low, max(high, low + least)])
