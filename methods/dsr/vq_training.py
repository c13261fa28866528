"""Training of DSR's quantised autoencoder on photographs, whatever they show (section 3.1, equation 1)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from methods.common.nearest import rows
from methods.common.photograph_training import (
    Card,
    PhotographPool,
    PhotographTrainingConfig,
    StepProgress,
    train_on_photographs,
)
from methods.common.precision import autocast, check_precision
from methods.detector import ImageSource
from methods.dsr.vq_model import CODES, Codebook, VqModel

SIZE = (256, 256)
"""Height and width that a photograph is resized to."""
SMOOTHING = 1e-5
"""Of the codes' sizes (Laplace)."""
DECAY = 0.99
"""Of the moving averages of which codes are made."""
CARD = Card(
    title="Quantised autoencoder of DSR",
    about=(
        "Two encoders, two codebooks of 4096 vectors and the general decoder (Zavrtanik et al., ECCV 2022, section "
        "3.1).\nfloat16 weights; input: images 0-1, channels in the order blue, green, red."
    ),
    loss="Squared error of the image, and of features from their codes.",
    command="bench distill vq",
)
UNUSED = 0.03
"""A code is unused if it gets less than this share of what a code gets on average."""


@dataclass(frozen=True, kw_only=True)
class VqConfig(PhotographTrainingConfig):
    """Options of the training.

    The paper trains on ImageNet and its code for this stage is not public: length, learning rate and how unused codes
    start anew are choices.

    Attributes:
        crop: Height and width of the crops in pixels, of photographs resized to 256x256.
        commitment: Weight of what it costs that features are far from their codes.
        restart_every: Steps after which codes that hardly any feature is near become features of the batch.
    """

    steps: Annotated[int, Field(gt=0)] = 100_000
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    crop: Annotated[int, Field(ge=32, le=256, multiple_of=8)] = 256
    commitment: Annotated[float, Field(ge=0)] = 0.25
    restart_every: Annotated[int, Field(gt=0)] = 20


def train_vq_model(
    config: VqConfig,
    photographs: ImageSource,
    out: Path,
    *,
    device: torch.device,
    force_precision: bool = False,
    progress: StepProgress = lambda step, steps, loss: None,
) -> Path:
    """Train and write the autoencoder; see :func:`methods.common.photograph_training.train_on_photographs`.

    Args:
        config: Options.
        photographs: What to train on.
        out: Its file, float16 safetensors.
        device: Where to train.
        force_precision: Train in a precision for which the CPU has no instructions, though that takes ages.
        progress: Called after each step.

    Returns:
        ``out``.

    Raises:
        MethodError: There are no photographs, the CPU only emulates the precision, the loss is not finite, or the
            checkpoint is damaged or of a run with other options.
    """
    check_precision(config.precision, device, forced=force_precision)
    training = VqTraining(config, photographs, device)
    return train_on_photographs(training, config, {"photographs": photographs.identity}, out, CARD, progress=progress)


class MovingCodes:
    """Moves a codebook's vectors to the mean of the features that are nearest to each: exponential moving averages.

    Args:
        codebook: Whose vectors are moved.

    Attributes:
        sizes: How many features of a batch have been nearest to a code, (4096,).
        sums: Their sum, (4096, 128).
    """

    def __init__(self, codebook: Codebook) -> None:
        self._codebook = codebook
        self.sizes = torch.zeros(CODES, device=codebook.vectors.device)
        self.sums = torch.zeros_like(codebook.vectors)

    @torch.no_grad()
    def update(self, features: Tensor, numbers: Tensor) -> None:
        """Take rows (N, 128), and the numbers of their nearest vectors (N,), into the averages."""
        counts = torch.bincount(numbers, minlength=CODES).float()
        sums = torch.zeros_like(self.sums).index_add_(0, numbers, features)
        self.sizes.mul_(DECAY).add_(counts, alpha=1 - DECAY)
        self.sums.mul_(DECAY).add_(sums, alpha=1 - DECAY)
        total = self.sizes.sum()
        smoothed = (self.sizes + SMOOTHING) / (total + CODES * SMOOTHING) * total
        self._codebook.vectors.copy_(self.sums / smoothed[:, None])

    @torch.no_grad()
    def restart(self, features: Tensor, below: float, generator: torch.Generator) -> int:
        """Make codes whose share of a batch is below ``below`` times the mean share random ones of the features.

        Returns:
            How many.
        """
        mean_size = len(features) / CODES
        unused = (self.sizes < below * mean_size).nonzero()[:, 0]
        chosen = features[torch.randint(len(features), (len(unused),), generator=generator).to(features.device)]
        self.sizes[unused] = mean_size
        self.sums[unused] = mean_size * chosen
        self._codebook.vectors[unused] = chosen
        return len(unused)


class VqTraining:
    """Training of a quantised autoencoder, one step at a time.

    Seeds the global generator for the initial weights.

    Args:
        config: Options.
        photographs: What to train on.
        device: Where.

    Attributes:
        network: The autoencoder in training.
        optimizer: Its optimiser; the codes are none of its parameters.
        codes: The moving averages of both codebooks, ``lo`` and ``hi``.

    Raises:
        MethodError: There are no photographs.
    """

    def __init__(self, config: VqConfig, photographs: ImageSource, device: torch.device) -> None:
        self._config = config
        self._device = device
        self._pool = PhotographPool(photographs, [SIZE], config.seed)
        torch.manual_seed(config.seed)
        self.network = VqModel().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(
            [parameter for parameter in self.network.parameters() if parameter.requires_grad], config.learning_rate
        )
        self.codes = {"lo": MovingCodes(self.network.codebook_lo), "hi": MovingCodes(self.network.codebook_hi)}

    def measure(self) -> None:
        """Nothing has to be known before the first step."""

    def state(self) -> dict[str, Tensor]:
        """The moving averages."""
        return {
            f"{level}.{name}": tensor
            for level, codes in self.codes.items()
            for name, tensor in (("sizes", codes.sizes), ("sums", codes.sums))
        }

    def step(self, number: int) -> float:
        """Run step ``number``, counted from 0, and return its loss; it depends on none of the draws before."""
        config, model = self._config, self.network
        generator = config.generator_of(number)
        images = self._crops(number, generator)
        restart = number % config.restart_every == 0
        with autocast(self._device, config.precision):
            encoded = model.encode(images)
            decoded = model.decode(encoded.quantised_lo, encoded.quantised_hi)
        loss = F.mse_loss(decoded, images)
        for codes, features, quantised, numbers in (
            (self.codes["lo"], encoded.features_lo, encoded.quantised_lo, encoded.codes_lo),
            (self.codes["hi"], encoded.features_hi, encoded.quantised_hi, encoded.codes_hi),
        ):
            loss = loss + config.commitment * F.mse_loss(features, quantised.detach())
            flat = rows(features.detach())
            codes.update(flat, numbers.flatten())
            if restart:
                codes.restart(flat, UNUSED, generator)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _crops(self, number: int, generator: torch.Generator) -> Tensor:
        """Crops of step ``number``, (B, 3, crop, crop), from 0 to 1, in the order blue, green, red."""
        crop, chosen = self._config.crop, self._pool.draw(number, self._config.batch_size, generator)
        crops = []
        for index in chosen.tolist():
            top, left = (int(torch.randint(side - crop + 1, (), generator=generator)) for side in SIZE)
            crops.append(self._pool.images[0][index][:, top : top + crop, left : left + crop])
        images = torch.stack(crops).to(self._device).flip(1) / 255
        return images.contiguous(memory_format=torch.channels_last)
