"""Distil a pretrained backbone into a teacher that describes patches (Bergmann et al., CVPR 2020, section 3.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.normalisation import Normalise
from methods.common.patch_networks import DESCRIPTOR_CHANNELS, PatchNetwork, PatchSize, patch_stride
from methods.common.photograph_training import (
    Card,
    PhotographPool,
    PhotographTrainingConfig,
    StepProgress,
    train_on_photographs,
)
from methods.common.precision import autocast, check_precision
from methods.detector import ImageSource
from methods.weights.catalogue import backbone_spec

PHOTOGRAPH_SIZE = (512, 512)
SIDES = (4, 16)
"""Least and greatest side of the photograph that a patch is cut from, in sides of the patch."""


@dataclass(frozen=True, kw_only=True)
class PatchTeacherConfig(PhotographTrainingConfig):
    """Options of a patch teacher's distillation; the defaults are the paper's.

    Two of them are ways out where those do not serve. The sum of correlations is small too where half of the channels
    are the opposite of the others, so that it need not make descriptors compact: ``compactness`` can be zero. And what
    a backbone that halves the resolution five times makes of 33 pixels is mostly what it makes of an image's border:
    ``enlargement`` gives it more.

    Attributes:
        patch_size: Side in pixels of the patch that a descriptor describes.
        backbone: Whose pooled features are distilled, a convolutional one of ``methods.weights.catalogue.BACKBONES``.
        backbone_weights: ``auto``, ``embedded``, ``random`` or a path.
        weight_decay: Of Adam.
        grayscale_probability: Of each patch.
        compactness: Weight of the correlation of the descriptors' channels, lambda_c.
        enlargement: Factor by which patches are enlarged for the backbone.
    """

    patch_size: PatchSize = 33
    backbone: str = "resnet18"
    backbone_weights: str = "auto"
    steps: Annotated[int, Field(gt=0)] = 50_000
    batch_size: Annotated[int, Field(gt=1)] = 64
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    grayscale_probability: Annotated[float, Field(ge=0, le=1)] = 0.1
    compactness: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    enlargement: Annotated[int, Field(ge=1, le=8)] = 1

    def __post_init__(self) -> None:
        backbone_spec(self.backbone, "convolutional")


def distil_patch_teacher(
    config: PatchTeacherConfig,
    photographs: ImageSource,
    out: Path,
    *,
    weights_dir: Path,
    device: torch.device,
    force_precision: bool = False,
    progress: StepProgress = lambda step, steps, loss: None,
) -> Path:
    """Distil and write a patch teacher; see :func:`methods.common.photograph_training.train_on_photographs`.

    Args:
        config: Options.
        photographs: Images to distil on.
        out: The teacher's file, float16 safetensors.
        weights_dir: Where downloaded backbones are kept.
        device: Where to train.
        force_precision: Train in a precision for which the CPU has no instructions, though that takes ages.
        progress: Called after each step.

    Returns:
        ``out``.

    Raises:
        MethodError: There are no photographs, the CPU only emulates the precision, the loss is not finite, or the
            checkpoint is damaged or of a run with other options.
        WeightsError: The backbone's weights cannot be had.
    """
    check_precision(config.precision, device, forced=force_precision)
    identity = backbone_identity(config.backbone, config.backbone_weights, weights_dir)
    facts = {"backbone_sha256": identity.sha256, "photographs": photographs.identity}
    training = PatchTeacherTraining(config, photographs, weights_dir, device)
    card = Card(
        title=f"Patch teacher, {config.patch_size} x {config.patch_size} pixels",
        about=(
            "Network that describes patches, distilled as Bergmann et al. (CVPR 2020) say, for S-T and GCAD.\n"
            f"float16 weights; input: ImageNet-normalised RGB; output: {DESCRIPTOR_CHANNELS} numbers per patch."
        ),
        loss="Squared distance of decoded descriptors from the backbone's, plus compactness times their correlations.",
        command="bench distill patch-teacher",
    )
    return train_on_photographs(training, config, facts, out, card, progress=progress)


class PatchTeacherTraining:
    """Distillation of a patch teacher, one step at a time.

    Seeds the global generator for the initial weights.

    Args:
        config: Options.
        photographs: Images to distil on.
        weights_dir: Where downloaded backbones are kept.
        device: Where to train.

    Attributes:
        network: The teacher on single patches: all its poolings halve the resolution.
        decoder: Of descriptors, to the backbone's; only the distillation needs it.
        optimizer: Of both.

    Raises:
        MethodError: There are no photographs.
        WeightsError: The backbone's weights cannot be had.
    """

    def __init__(
        self, config: PatchTeacherConfig, photographs: ImageSource, weights_dir: Path, device: torch.device
    ) -> None:
        self._config = config
        self._device = device
        self._backbone = Backbone(config.backbone, (32,), config.backbone_weights, weights_dir).to(device)
        self._pool = PhotographPool(photographs, [PHOTOGRAPH_SIZE], config.seed)
        self._normalise = Normalise().to(device)
        torch.manual_seed(config.seed)
        self.network = PatchNetwork(config.patch_size, patch_stride(config.patch_size)).to(device)
        self.decoder = nn.Linear(DESCRIPTOR_CHANNELS, self._backbone.channels[0]).to(device)
        self.optimizer = torch.optim.Adam(
            [*self.network.parameters(), *self.decoder.parameters()],
            config.learning_rate,
            weight_decay=config.weight_decay,
        )

    def measure(self) -> None:
        """Measure nothing: the loss is of the backbone's features as they are."""

    def state(self) -> Mapping[str, Tensor]:
        """The decoder's numbers."""
        return dict(self.decoder.state_dict())

    def step(self, number: int) -> float:
        """Run step ``number``, counted from 0, and return its loss; it depends on none of the draws before."""
        config = self._config
        generator = config.generator_of(number)
        chosen = self._pool.draw(number, config.batch_size, generator)
        photographs = self._pool.images[0][chosen].to(self._device)
        patches = random_patches(photographs, config.patch_size, config.grayscale_probability, generator)
        target = self.target(patches)
        with autocast(self._device, config.precision):
            descriptors = self.network.layers(self._normalise(patches))[:, :, 0, 0].float()
        loss = distillation(self.decoder(descriptors), target) + config.compactness * correlation(descriptors)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def target(self, patches: Tensor) -> Tensor:
        """The backbone's last feature map of patches (B, 3, p, p), uint8, averaged: (B, C)."""
        from torchvision.transforms.v2.functional import resize

        side = self._config.enlargement * self._config.patch_size
        (features,) = self._backbone(resize(patches, [side, side]))
        pooled: Tensor = features.mean((2, 3))
        return pooled


def distillation(decoded: Tensor, target: Tensor) -> Tensor:
    """Squared distance of decoded descriptors from the backbone's features, both (B, C), averaged over patches: L_k."""
    squares: Tensor = (decoded - target).square()
    return squares.sum(1).mean()


def correlation(descriptors: Tensor) -> Tensor:
    """Sum of the correlations over a batch of each channel of descriptors (B, C) with each other: L_c."""
    centred = descriptors - descriptors.mean(0)
    unit = centred / centred.norm(dim=0).clamp_min(1e-8)
    correlations: Tensor = unit.T @ unit
    return correlations.sum() - correlations.trace()


def random_patches(images: Tensor, side: int, grayscale_probability: float, generator: torch.Generator) -> Tensor:
    """Cut one patch out of each image as if this had been resized to a random size before.

    Args:
        images: uint8 (B, 3, S, S).
        side: Of the patches. The image's, as it would have been resized, is uniform between 4 and 16 times that.
        grayscale_probability: Of each patch.
        generator: Draws sizes, places, and which are gray.

    Returns:
        uint8 (B, 3, side, side).
    """
    from torchvision.transforms.v2.functional import resized_crop, rgb_to_grayscale

    least, greatest = SIDES
    draws = torch.rand(len(images), 4, generator=generator).tolist()
    patches = []
    for image, (size, row, column, gray) in zip(images, draws, strict=True):
        # Cutting before resizing is the same but for the outermost pixels, and cheaper.
        span = round(images.shape[2] / (least + size * (greatest - least)))
        top, left = (int(place * (images.shape[2] - span + 1)) for place in (row, column))
        patch = resized_crop(image, top, left, span, span, [side, side], antialias=True)
        patches.append(rgb_to_grayscale(patch, num_output_channels=3) if gray < grayscale_probability else patch)
    return torch.stack(patches)
