"""GCAD (Bergmann et al., IJCV 2022, "Beyond Dents and Scratches"): what a U-Net fails to imitate is anomalous."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.common.batches import batches
from methods.common.colour_jitter import colour_jitter
from methods.common.frozen_features import measured_features
from methods.common.normalisation import Normalise
from methods.common.patch_networks import DESCRIPTOR_CHANNELS, PatchNetwork, PatchSize
from methods.common.patch_teachers import load_patch_teacher, patch_teacher_files, patch_teacher_identity
from methods.common.precision import run_network
from methods.common.standardised_maps import StandardisedSum
from methods.common.torchvision_import import import_torchvision
from methods.common.training import train as run_training
from methods.detector import Detector, FitContext, ImageSet
from methods.errors import MethodError
from methods.gcad.networks import ENCODER_MULTIPLE, GlobalAutoencoder, UNet, channel_upsampling
from methods.training_length import Epochs
from methods.weights.files import WeightIdentity

DESCRIPTOR_BYTES = 4 * 2**30
"""Of the training images' descriptors, so much is kept on the device; what does not fit is computed at each step."""

Side = Annotated[int, Field(ge=64, multiple_of=ENCODER_MULTIPLE)]
Count = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class GcadConfig:
    """Options of GCAD; the defaults are those with which the EfficientAD paper evaluates it (its Appendix B.4).

    That is one member of the ensemble of two, whose other describes patches of 17 pixels, and a bottleneck of 64
    numbers instead of 32. Of the two that is the one which is better on average, and has a published latency.

    Attributes:
        patch_size: Side in pixels of the patches that the local branch's teacher describes.
        teacher: Its weights: ``embedded`` (33 pixels), ``random``, or the path of what ``bench distill patch-teacher``
            wrote. None are published, so ``auto`` says how to get some.
        image_size: Height and width in pixels, multiples of 32.
        bottleneck: Numbers in the global branch's bottleneck.
        global_channels: Channels of the global branch's maps.
        unet_width: Channels of both U-Nets at full resolution.
        training_steps: Optimiser steps at training scale 1. EfficientAD's 70 000 are "roughly 40 %" of GCAD's.
        batch_size: Images per step; our choice.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        jitter: Brightness, contrast or saturation of a training image changes by up to this share. Our choice: the
            paper turns, flips and jitters each scenario's images in its own way, which a benchmark cannot.
        warm_up: Share of the steps during which the skip connections fade, after which L_glo sets in; our choice.
    """

    patch_size: PatchSize = 33
    teacher: str = "auto"
    image_size: tuple[Side, Side] = (256, 256)
    bottleneck: Count = 64
    global_channels: Count = 10
    unet_width: Count = 64
    training_steps: Count = 175_000
    batch_size: Count = 1
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    jitter: Annotated[float, Field(ge=0, lt=1)] = 0.2
    warm_up: Annotated[float, Field(ge=0, le=1)] = 0.1


class GcadModule(nn.Module):
    """Both branches, each with the network that imitates it, and the map of where those fail.

    Args:
        config: Options.

    Attributes:
        mean: Of each channel of the teacher over the training images, (1, 128, 1, 1).
        std: Likewise, the standard deviation.
        combine: Local and global map, as they are on the validation images.
    """

    networks = ("teacher", "local_student", "autoencoder", "global_student")
    mean: Tensor
    std: Tensor

    def __init__(self, config: GcadConfig) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.teacher = PatchNetwork(config.patch_size)
        self.local_student = UNet(DESCRIPTOR_CHANNELS, config.unet_width)
        self.autoencoder = GlobalAutoencoder(config.image_size, config.bottleneck, config.global_channels)
        self.global_student = UNet(config.global_channels, config.unet_width)
        self.combine = StandardisedSum(2)
        self.register_buffer("mean", torch.zeros(1, DESCRIPTOR_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(1, DESCRIPTOR_CHANNELS, 1, 1))

    def target(self, descriptors: Tensor) -> Tensor:
        """The teacher's descriptors (B, 128, H, W), normalised per channel: E_loc."""
        return (descriptors - self.mean) / self.std

    def branch_maps(self, images: Tensor) -> Tensor:
        """Squared distances ||E_loc - R_loc||^2 and ||E_glo - R_glo||^2 of each position, (B, 2, H, W).

        Args:
            images: (B, 3, H, W), uint8 0-255 or floating 0-1.
        """
        normalised = self.normalise(images)
        teacher, local_student, autoencoder, global_student = (
            run_network(self.get_submodule(name), normalised) for name in self.networks
        )
        local = (self.target(teacher) - local_student).square().sum(1)
        return torch.stack([local, (autoencoder - global_student).square().sum(1)], dim=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, H, W), sums of both branches' standardised maps, and their maxima (B,).

        Args:
            images: (B, 3, H, W), uint8 0-255 or floating 0-1.
        """
        maps = self.combine(self.branch_maps(images))
        return maps, maps.flatten(1).amax(1)


class Gcad(Detector[GcadConfig]):
    """GCAD as far as it is known; there is no public code, and these are our choices.

    - Layers of E_glo: EfficientAD's encoder, which simplifies it, and a decoder that mirrors it with transposed
      convolutions; of U: two convolutions of 1x1; of both imitating networks: the original U-Net. Together they have
      the published 65 million parameters.
    - The skip connections of E_glo are sums, whose weight falls from one to zero over the first tenth of the steps;
      L_glo sets in when it is zero, and its gradient reaches E_glo too.
    - The local branch's targets are normalised per channel as S-T's are.
    - Initial weights of the U-Nets: their paper's, but for a last layer of zeros.
    - One image a step; colour jitter for all scenarios instead of an augmentation for each.
    """

    title = "GCAD"
    source = "Bergmann et al., IJCV 2022"
    status = "reimplementation, details of the paper unknown"
    Config = GcadConfig
    uses_validation = True
    _embedded: ClassVar = {"teacher": "embedded"}
    # So few steps, on a CPU, need small U-Nets, targets that are computed once, and a higher learning rate.
    _short: ClassVar = {
        "image_size": (128, 128),
        "unet_width": 16,
        "jitter": 0.0,
        "learning_rate": 1e-3,
        "training_steps": 500,
    }
    presets: ClassVar = {"embedded": _embedded, "demo": {**_embedded, **_short}}
    packages = ("torch", "torchvision")

    def __init__(self, config: GcadConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: GcadConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the teacher.

        Raises:
            WeightsError: Its file is missing, or there is none.
        """
        return [patch_teacher_identity(config.patch_size, config.teacher, weights_dir)]

    @classmethod
    def weight_files(cls, config: GcadConfig) -> list[str]:
        """Name of the teacher's file in the catalogue."""
        return patch_teacher_files(config.patch_size, config.teacher)

    @classmethod
    def training_length(cls, config: GcadConfig) -> int:
        """Optimiser steps at training scale 1."""
        return config.training_steps

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train both branches at once, and standardise their maps on held-out images.

        Raises:
            WeightsError: The teacher's file is missing or wrong.
            MethodError: There are no training or no validation images.
        """
        if len(train) == 0:
            raise MethodError("GCAD needs at least one training image and was given none")
        if len(validation) == 0:
            raise MethodError("GCAD normalises its maps on validation images and was given none")
        config = self.config
        module = GcadModule(config)
        load_patch_teacher(module.teacher, config.patch_size, config.teacher, context.weights_dir)
        module.to(context.device)
        self.training_steps = context.training_steps(config.training_steps)
        self.losses = _train(module, train, config, self.training_steps, context)
        module.eval().requires_grad_(False)
        module.combine.measure(module.branch_maps, validation, context)
        self.fitted = module

    @classmethod
    def build_module(cls, config: GcadConfig, state: Mapping[str, Tensor]) -> GcadModule:
        """The untrained networks."""
        return GcadModule(config)


def branch_losses(
    module: GcadModule, upsampling: nn.Module, images: Tensor, target: Tensor, *, skips: float, imitate: bool
) -> tuple[Tensor, Tensor]:
    """L_loc / d_loc, and L_kd / d_loc + L_glo / d_glo, each a mean over positions of squared distances.

    No network that one of both trains is trained by the other, so that they can be differentiated one after the other.

    Args:
        module: The branches.
        upsampling: U, which takes E_glo to the teacher's descriptors.
        images: Normalised, (B, 3, H, W).
        target: E_loc of these, (B, 128, H, W).
        skips: Weight of the skip connections of E_glo.
        imitate: Whether L_glo has set in.
    """
    local = F.mse_loss(module.local_student(images), target)
    described = module.autoencoder(images, skips)
    of_whole = F.mse_loss(upsampling(described), target)
    if imitate:
        of_whole = of_whole + F.mse_loss(module.global_student(images), described)
    return local, of_whole


def skip_weight(step: int, warm_up: float, steps: int) -> float:
    """Weight of the skip connections at a step, counted from 0: from one to zero over a share of all steps."""
    return max(0.0, 1 - step / (warm_up * steps)) if warm_up else 0.0


def _train(
    module: GcadModule, images: ImageSet, config: GcadConfig, steps: int, context: FitContext
) -> list[tuple[int, float]]:
    import_torchvision()
    generator = torch.Generator().manual_seed(context.seed)

    def describe(batch: Tensor) -> Tensor:
        described: Tensor = module.teacher(module.normalise(batch))
        return described

    # Descriptors of images that are augmented are not seen again.
    budget = 0 if config.jitter else DESCRIPTOR_BYTES
    kept, mean, std = measured_features(describe, DESCRIPTOR_CHANNELS, images, context, budget)
    module.mean.copy_(mean)
    module.std.copy_(std)
    upsampling = channel_upsampling(config.global_channels, DESCRIPTOR_CHANNELS).to(context.device)
    trained = (module.local_student, module.autoencoder, module.global_student, upsampling)
    optimizer = torch.optim.Adam(
        [parameter for network in trained for parameter in network.parameters()],
        config.learning_rate,
        weight_decay=config.weight_decay,
    )
    draws = batches(len(images), Epochs(1, config.batch_size), generator)
    done = 0

    def step() -> Tensor:
        nonlocal done
        chosen = next(draws).tolist()
        batch = images[chosen]
        if config.jitter:
            batch = torch.stack([colour_jitter(image, config.jitter, generator) for image in batch])
        batch = batch.to(context.device, non_blocking=True)
        with torch.no_grad():
            target = module.target(describe(batch) if config.jitter else kept[chosen][0])
        skips = skip_weight(done, config.warm_up, steps)
        losses = branch_losses(module, upsampling, module.normalise(batch), target, skips=skips, imitate=not skips)
        optimizer.zero_grad()
        for loss in losses:
            loss.backward()
        optimizer.step()
        done += 1
        return torch.stack([loss.detach() for loss in losses]).sum()

    recorded = run_training(step, steps, context, "training")
    optimizer.zero_grad()
    return recorded
