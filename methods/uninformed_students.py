"""S-T (Bergmann et al., CVPR 2020, "Uninformed Students"): students fail to follow teachers, and one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.common.batches import batches
from methods.common.frozen_features import FrozenFeatures, measured_features
from methods.common.normalisation import Normalise
from methods.common.patch_networks import DESCRIPTOR_CHANNELS, PatchNetwork, PatchSize
from methods.common.patch_teachers import load_patch_teacher, patch_teacher_files, patch_teacher_identity
from methods.common.precision import run_network
from methods.common.resampling import Resize
from methods.common.standardised_maps import StandardisedSum
from methods.common.training import train as run_training
from methods.detector import Detector, FitContext, ImageSet
from methods.errors import MethodError
from methods.training_length import Epochs
from methods.weights.files import WeightIdentity

DESCRIPTOR_BYTES = 4 * 2**30
"""Of the training images' descriptors, so much is kept on the device; what does not fit is computed at each step."""

Side = Annotated[int, Field(ge=64)]
Count = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class UninformedStudentsConfig:
    """Options of S-T; the defaults are the paper's.

    Attributes:
        patch_sizes: Sides in pixels of the patches that teachers describe, one scale each.
        teachers: Weights of each scale's teacher: ``embedded`` (33 pixels), ``random``, or the path of what ``bench
            distill patch-teacher`` wrote. None are published, so ``auto`` says how to get some.
        students: Of each teacher.
        image_size: Height and width in pixels, multiples of the stride.
        stride: Pixels from one descriptor to the next, for a quick look: 1 describes each pixel, as the paper.
        epochs: Passes over the training images at training scale 1.
        batch_size: Images per step.
        learning_rate: Of Adam.
        weight_decay: Of Adam.
    """

    patch_sizes: tuple[PatchSize, ...] = (17, 33, 65)
    teachers: tuple[str, ...] = ("auto", "auto", "auto")
    students: Count = 3
    image_size: tuple[Side, Side] = (256, 256)
    stride: Literal[1, 2, 4, 8] = 1
    epochs: Count = 100
    batch_size: Count = 1
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5

    def __post_init__(self) -> None:
        if not self.patch_sizes or len(self.patch_sizes) != len(self.teachers):
            raise MethodError(
                f"S-T takes one teacher for each patch size, at least one, and was given patch_sizes "
                f"{self.patch_sizes} and teachers {self.teachers}"
            )
        if any(side % self.stride for side in self.image_size):
            raise MethodError(
                f"image_size {self.image_size} must be multiples of stride {self.stride}\n"
                "  Use another image_size, or stride=1."
            )


class Scale(nn.Module):
    """A teacher, its students, and what their maps are normalised by.

    Args:
        patch_size: What they describe.
        students: How many.
        stride: Of their descriptors.

    Attributes:
        mean: Of each channel of the teacher over the training images, (1, 128, 1, 1).
        std: Likewise, the standard deviation.
        combine: Regression error and predictive variance, as they are on the validation images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, patch_size: PatchSize, students: int, stride: int) -> None:
        super().__init__()
        self.teacher = PatchNetwork(patch_size, stride)
        ensemble = [PatchNetwork(patch_size, stride) for _ in range(students)]
        self.students: Sequence[PatchNetwork] = nn.ModuleList(ensemble)  # type: ignore[assignment]
        self.register_buffer("mean", torch.zeros(1, DESCRIPTOR_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(1, DESCRIPTOR_CHANNELS, 1, 1))
        self.combine = StandardisedSum(2)

    def target(self, descriptors: Tensor) -> Tensor:
        """The teacher's descriptors (B, 128, h, w), normalised per channel."""
        return (descriptors - self.mean) / self.std

    def error_and_variance(self, images: Tensor) -> Tensor:
        """Regression error and predictive variance (B, 2, h, w) on normalised images (B, 3, H, W)."""
        target = self.target(run_network(self.teacher, images))
        students = torch.stack([run_network(student, images) for student in self.students])
        return error_and_variance(students, target)

    def forward(self, images: Tensor) -> Tensor:
        """Sum of both maps, each normalised, (B, h, w), of normalised images (B, 3, H, W)."""
        maps: Tensor = self.combine(self.error_and_variance(images))
        return maps


def error_and_variance(students: Tensor, target: Tensor) -> Tensor:
    """Regression error and predictive variance of an ensemble.

    Args:
        students: Their descriptors, (M, B, C, h, w).
        target: The teacher's, (B, C, h, w).

    Returns:
        (B, 2, h, w): squared distance of the students' mean from the teacher; and mean squared norm of the students,
        less the squared norm of their mean, as the mean squared distance from that mean, which rounds to no negative.
    """
    mean = students.mean(0)
    error = (mean - target).square().sum(1)
    variance = (students - mean).square().sum(2).mean(0)
    return torch.stack([error, variance], dim=1)


class UninformedStudentsModule(nn.Module):
    """Scales, and the mean of their maps.

    Args:
        config: Options.
    """

    def __init__(self, config: UninformedStudentsConfig) -> None:
        super().__init__()
        self.normalise = Normalise()
        scales = [Scale(size, config.students, config.stride) for size in config.patch_sizes]
        self.scales: Sequence[Scale] = nn.ModuleList(scales)  # type: ignore[assignment]
        self.networks = [f"scales.{n}.{part}" for n in range(len(scales)) for part in ("teacher", "students")]
        height, width = config.image_size
        self.upsample = Resize((height // config.stride, width // config.stride), config.image_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, H, W), means over scales, and their maxima (B,), of images, uint8 0-255 or floating 0-1."""
        normalised = self.normalise(images)
        maps = torch.stack([scale(normalised) for scale in self.scales]).mean(0)
        maps = self.upsample(maps[:, None])[:, 0]
        return maps, maps.flatten(1).amax(1)


class UninformedStudents(Detector[UninformedStudentsConfig]):
    """S-T, with teachers that ``bench distill`` makes; there is no official code and no published teacher.

    Our choice, where the paper leaves it open: the students of all teachers see the same image at each step, and the
    images are not augmented.
    """

    title = "S-T"
    source = "Bergmann et al., CVPR 2020"
    status = "reimplementation, details of the paper unknown"
    Config = UninformedStudentsConfig
    uses_validation = True
    _embedded: ClassVar = {"patch_sizes": (33,), "teachers": ("embedded",)}
    # So few steps, on a CPU, need small images, descriptors further apart, and a higher learning rate.
    _short: ClassVar = {"image_size": (128, 128), "stride": 4, "learning_rate": 1e-3, "epochs": 4}
    presets: ClassVar = {"embedded": _embedded, "demo": {**_embedded, **_short}}
    packages = ("torch",)

    def __init__(self, config: UninformedStudentsConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: UninformedStudentsConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the teachers.

        Raises:
            WeightsError: A file is missing, or there is none.
        """
        pairs = zip(config.patch_sizes, config.teachers, strict=True)
        return [patch_teacher_identity(size, teacher, weights_dir) for size, teacher in pairs]

    @classmethod
    def weight_files(cls, config: UninformedStudentsConfig) -> list[str]:
        """Names of the teachers' files in the catalogue."""
        pairs = zip(config.patch_sizes, config.teachers, strict=True)
        return [name for size, teacher in pairs for name in patch_teacher_files(size, teacher)]

    @classmethod
    def training_length(cls, config: UninformedStudentsConfig) -> Epochs:
        """Passes over the training images at training scale 1, of all students at once."""
        return Epochs(config.epochs, config.batch_size)

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train the students, and normalise their maps on held-out images.

        Raises:
            WeightsError: A teacher's file is missing or wrong.
            MethodError: There are no training or no validation images.
        """
        if len(train) == 0:
            raise MethodError("S-T needs at least one training image and was given none")
        if len(validation) == 0:
            raise MethodError("S-T normalises its maps on validation images and was given none")
        config = self.config
        module = UninformedStudentsModule(config)
        for scale, size, teacher in zip(module.scales, config.patch_sizes, config.teachers, strict=True):
            load_patch_teacher(scale.teacher, size, teacher, context.weights_dir)
        module.to(context.device)
        self.training_steps = context.training_steps(self.training_length(config).steps(len(train)))
        self.losses = _train(module, train, config, self.training_steps, context)
        module.eval().requires_grad_(False)
        for scale in module.scales:
            _measure_maps(module, scale, validation, context)
        self.fitted = module

    @classmethod
    def build_module(cls, config: UninformedStudentsConfig, state: Mapping[str, Tensor]) -> UninformedStudentsModule:
        """The untrained networks."""
        return UninformedStudentsModule(config)


def student_loss(descriptors: Tensor, target: Tensor) -> Tensor:
    """Squared distance of a student's descriptors from its teacher's, both (B, C, h, w), averaged over positions."""
    return F.mse_loss(descriptors, target) * target.shape[1]


def _train(
    module: UninformedStudentsModule,
    images: ImageSet,
    config: UninformedStudentsConfig,
    steps: int,
    context: FitContext,
) -> list[tuple[int, float]]:
    targets = [_targets(module, scale, images, context) for scale in module.scales]
    students = [student for scale in module.scales for student in scale.students]
    optimizer = torch.optim.Adam(
        [parameter for student in students for parameter in student.parameters()],
        config.learning_rate,
        weight_decay=config.weight_decay,
    )
    draws = batches(
        len(images), UninformedStudents.training_length(config), torch.Generator().manual_seed(context.seed)
    )

    def step() -> Tensor:
        chosen = next(draws).tolist()
        normalised = module.normalise(images[chosen].to(context.device, non_blocking=True))
        optimizer.zero_grad()
        losses = []
        for scale, descriptors in zip(module.scales, targets, strict=True):
            target = scale.target(descriptors[chosen][0])
            for student in scale.students:
                # One at a time, so that the memory of one student's activations is enough.
                loss = student_loss(student(normalised), target)
                loss.backward()
                losses.append(loss.detach())
        optimizer.step()
        return torch.stack(losses).mean()

    recorded = run_training(step, steps, context, "training")
    optimizer.zero_grad()
    return recorded


def _targets(module: UninformedStudentsModule, scale: Scale, images: ImageSet, context: FitContext) -> FrozenFeatures:
    """Measure the teacher's channels over all images; return its descriptors, which are not normalised."""
    descriptors, mean, std = measured_features(
        lambda batch: scale.teacher(module.normalise(batch)),
        DESCRIPTOR_CHANNELS,
        images,
        context,
        DESCRIPTOR_BYTES // len(module.scales),
    )
    scale.mean.copy_(mean)
    scale.std.copy_(std)
    return descriptors


def _measure_maps(module: UninformedStudentsModule, scale: Scale, images: ImageSet, context: FitContext) -> None:
    """Measure both maps of a scale on held-out normal images."""
    scale.combine.measure(lambda batch: scale.error_and_variance(module.normalise(batch)), images, context)
