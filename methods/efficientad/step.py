"""One training iteration of EfficientAD (Batzner et al., WACV 2024, Algorithm 1, lines 14-38), as it reads.

No value is read back from the device: on a GPU the host runs ahead of it.
"""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor

from methods.common.precision import TrainingPrecision, autocast
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import TEACHER_CHANNELS
from methods.errors import MethodError

HARD_QUANTILE = 0.999
"""The mining factor p_hard of section 3.2."""

StepName = Literal["reference", "fast"]


class StepLoss(Protocol):
    """Total loss of one iteration, as a scalar that can be differentiated."""

    def __call__(
        self,
        network: EfficientAdNetwork,
        image: Tensor,
        augmented: Tensor,
        penalty: Tensor | None,
        target: Tensor,
        precision: TrainingPrecision,
        p_hard: float,
    ) -> Tensor:
        """Compute the loss of :func:`step_loss`, whose arguments these are."""


def choose_step(option: Literal["auto", "reference", "fast"], device: torch.device) -> StepName:
    """Which training step a device takes: on a CPU the fast one, elsewhere the reference.

    Raises:
        MethodError: The fast one is asked for elsewhere than on a CPU.
    """
    if option == "fast" and device.type != "cpu":
        raise MethodError(
            f"step=fast is for CPUs, and the device is {device}\n"
            "  Allowed on it: auto and reference, which are the same there."
        )
    if option == "auto":
        return "fast" if device.type == "cpu" else "reference"
    return option


def step_loss(
    network: EfficientAdNetwork,
    image: Tensor,
    augmented: Tensor,
    penalty: Tensor | None,
    target: Tensor,
    precision: TrainingPrecision,
    p_hard: float = HARD_QUANTILE,
) -> Tensor:
    """Total loss of one iteration.

    Args:
        network: In training mode.
        image: Training image, as ``network.prepare`` makes it, (1, 3, 256, 256).
        augmented: The same, augmented.
        penalty: Pretraining image, or ``None`` for no penalty.
        target: Normalised teacher features (1, 384, h, w) of ``image``.
        precision: Of the networks; losses are float32 always.
        p_hard: Which quantile of the student's squared differences its loss starts from; 0 takes all (section 3.2).
    """
    images = [image, augmented] if penalty is None else [image, augmented, penalty]
    with autocast(image.device, precision):
        student = network.student(torch.cat(images))
        decoded = network.autoencoder(augmented)
        with torch.no_grad():
            augmented_target = network.target(network.teacher(augmented))
    first_half, second_half = student.float().split(TEACHER_CHANNELS, dim=1)
    decoded = decoded.float()

    differences = (target - first_half[0:1]).square().flatten()
    loss: Tensor = differences[hard_elements(differences, p_hard)].mean()
    loss = loss + (augmented_target - decoded).square().mean()
    loss = loss + (decoded - second_half[1:2]).square().mean()
    if penalty is not None:
        loss = loss + first_half[2:3].square().mean()
    return loss


def hard_elements(differences: Tensor, quantile: float = HARD_QUANTILE) -> Tensor:
    """Indices, ascending, of the elements of (n,) that are at least the ``quantile`` of all (lines 19 and 20).

    The quantile lies between two neighbours in sorted order, so the elements that reach it are those from the upper
    neighbour on: a known number, and no element need be compared with it. Of equal ones at that limit some are left
    out, which changes a mean only if there are several.
    """
    count = len(differences) - math.ceil(quantile * (len(differences) - 1))
    return differences.topk(count, sorted=False).indices.sort().values
