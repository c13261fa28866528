"""DSR (Zavrtanik et al., ECCV 2022): anomalies are made up in a quantised feature space, and told from normality."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from methods.common.precision import run_network
from methods.common.training import train as run_training
from methods.detector import Detector, FitContext, ImageSet
from methods.dsr.anomalies import FeatureAnomalies, anomaly_masks, feature_anomalies, rotate_some, smudged
from methods.dsr.losses import IMAGE_WEIGHT, focal
from methods.dsr.networks import SubspaceRestriction, UNet, initialise, object_decoder
from methods.dsr.vq_model import VqModel
from methods.dsr.weights import load_vq_model, vq_model_files, vq_model_identity
from methods.errors import MethodError
from methods.weights.files import WeightIdentity

DECAY_AT = 0.8
"""Share of the detection's steps after which the learning rate is a tenth."""
SCORE_WINDOW = 21
"""Side of the square that the detector's mask is averaged over for the image score, in pixels."""
DETECTION_ROTATION, UPSAMPLING_ROTATION = 0.4, 0.3
"""Probabilities that a training image is rotated."""

Side = Annotated[int, Field(ge=64, multiple_of=32)]
Count = Annotated[int, Field(gt=0)]


@dataclass(frozen=True)
class DsrConfig:
    """Options of DSR; the defaults are those of its official code.

    Attributes:
        vq_model: Weights of the quantised autoencoder: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        image_size: Height and width in pixels, multiples of 32.
        detection_steps: Optimiser steps of restriction, object decoder and detector at training scale 1: 100 epochs of
            8000 images.
        upsampling_steps: Optimiser steps of the upsampling network after these: 50 such epochs.
        batch_size: Images per step.
        learning_rate: Of Adam; a tenth of it for the last fifth of the detection's steps.
    """

    vq_model: str = "auto"
    image_size: tuple[Side, Side] = (256, 256)
    detection_steps: Count = 100_000
    upsampling_steps: Count = 50_000
    batch_size: Count = 8
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-4


@dataclass(frozen=True)
class Decoded:
    """What the networks make of quantised features.

    Attributes:
        restricted_lo: Features of normal appearance, not quantised, (B, 128, H/8, W/8).
        restricted_hi: Likewise, (B, 128, H/4, W/4).
        specific: Image that the object's decoder makes of them, (B, 3, H, W).
        general: Image that the general decoder makes of the features as they are, likewise.
    """

    restricted_lo: Tensor
    restricted_hi: Tensor
    specific: Tensor
    general: Tensor


class DsrModule(nn.Module):
    """The quantised autoencoder, and what is trained of each object (figure 3 of the paper)."""

    networks = (
        *(f"vq.{name}" for name in VqModel.networks),
        *("restriction_lo", "restriction_hi", "object_decoder", "detector", "upsampler"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.vq = VqModel().requires_grad_(False)
        self.restriction_lo = SubspaceRestriction()
        self.restriction_hi = SubspaceRestriction()
        self.object_decoder = object_decoder()
        self.detector = UNet(6)
        self.upsampler = UNet(8)
        initialise(self.object_decoder, self.detector)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, H, W) and image scores (B,) of images (B, 3, H, W), uint8 0-255 or floating 0-1.

        The map is the upsampling network's probability of an anomaly; the score is the highest of the detector's,
        averaged over squares of 21 pixels.
        """
        encoded = self.vq.encode(as_bgr(images))
        decoded = self.decode(encoded.quantised_lo, encoded.quantised_hi)
        mask = self.detect(decoded)
        maps = self.upsample(decoded, mask)[:, 1]
        averaged = F.avg_pool2d(mask[:, 1:], SCORE_WINDOW, stride=1, padding=SCORE_WINDOW // 2)
        return maps, averaged.flatten(1).amax(1)

    def decode(self, lo: Tensor, hi: Tensor) -> Decoded:
        """Restrict quantised features (B, 128, H/8, W/8) and (B, 128, H/4, W/4), and make images of them."""
        restricted_lo: Tensor = run_network(self.restriction_lo, lo)
        restricted_hi: Tensor = run_network(self.restriction_hi, hi)
        joined = self.vq.join(self.vq.codebook_lo(restricted_lo), self.vq.codebook_hi(restricted_hi))
        specific: Tensor = run_network(self.object_decoder, joined)
        return Decoded(restricted_lo, restricted_hi, specific, self.vq.decode(lo, hi))

    def detect(self, decoded: Decoded) -> Tensor:
        """Probabilities of normal and anomalous, (B, 2, H, W); no gradient reaches the images."""
        both = torch.cat([decoded.specific, decoded.general], dim=1).detach()
        logits: Tensor = run_network(self.detector, both)
        return logits.softmax(1)

    def upsample(self, decoded: Decoded, mask: Tensor) -> Tensor:
        """Probabilities (B, 2, H, W) that the upsampling network makes of both images and the detector's mask."""
        logits: Tensor = run_network(self.upsampler, torch.cat([decoded.specific, decoded.general, mask], dim=1))
        return logits.softmax(1)

    def detection_loss(self, images: Tensor, anomalies: FeatureAnomalies) -> Tensor:
        """What restriction, object decoder and detector minimise (equations 2 to 5).

        Args:
            images: Without anomalies, (B, 3, H, W), 0-1.
            anomalies: Their features, with and without.
        """
        decoded = self.decode(anomalies.lo, anomalies.hi)
        restriction = F.mse_loss(decoded.restricted_lo, anomalies.normal_lo)
        restriction = restriction + F.mse_loss(decoded.restricted_hi, anomalies.normal_hi)
        image = IMAGE_WEIGHT * F.mse_loss(decoded.specific, images)
        return focal(self.detect(decoded), anomalies.masks) + restriction + image

    def upsampling_loss(self, smudges: Tensor, masks: Tensor) -> Tensor:
        """What the upsampling network minimises on images with smudges (B, 3, H, W), where masks (B, 1, H, W) are 1."""
        with torch.no_grad():
            encoded = self.vq.encode(smudges)
            decoded = self.decode(encoded.quantised_lo, encoded.quantised_hi)
            mask = self.detect(decoded)
        return focal(self.upsample(decoded, mask), masks)


def as_bgr(images: Tensor) -> Tensor:
    """Float images 0-1 in the order blue, green, red, as the official weights were trained, of RGB ones."""
    return (images / 255 if images.dtype == torch.uint8 else images.float()).flip(1)


class Dsr(Detector[DsrConfig]):
    """DSR with the official code's options, and one learning rate for all of the upsampling.

    That code's schedule lowers the learning rate of the upsampling after 80 of its 50 epochs, which is never. Channels
    go in as blue, green, red, as that code reads them and as its autoencoder was trained. Pixels at the border count,
    which that code leaves out of its pixel metrics.
    """

    title = "DSR"
    source = "Zavrtanik et al., ECCV 2022"
    Config = DsrConfig
    _embedded: ClassVar = {"vq_model": "embedded"}
    presets: ClassVar = {
        "embedded": _embedded,
        "demo": {
            **_embedded,
            "image_size": (128, 128),
            "batch_size": 4,
            "learning_rate": 1e-3,
            "detection_steps": 40,
            "upsampling_steps": 15,
        },
    }

    packages = ("torch",)

    def __init__(self, config: DsrConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: DsrConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the quantised autoencoder.

        Raises:
            WeightsError: Its file is missing.
        """
        return [vq_model_identity(config.vq_model, weights_dir)]

    @classmethod
    def weight_files(cls, config: DsrConfig) -> list[str]:
        """Name the catalogue's file of the quantised autoencoder."""
        return vq_model_files(config.vq_model)

    @classmethod
    def training_length(cls, config: DsrConfig) -> int:
        """Optimiser steps of detection and upsampling together, at training scale 1."""
        return config.detection_steps + config.upsampling_steps

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Train restriction, object decoder and detector, then the upsampling network; ``validation`` is not used.

        Raises:
            MethodError: There are no training images.
            WeightsError: The quantised autoencoder cannot be had.
        """
        if len(train) == 0:
            raise MethodError("DSR needs at least one training image and was given none")
        config = self.config
        module = DsrModule()
        load_vq_model(module.vq, config.vq_model, context.weights_dir)
        module.to(context.device)
        self.training_steps = context.training_steps(self.training_length(config))
        detection = math.ceil(self.training_steps * config.detection_steps / self.training_length(config))
        stages = _Stages(module, train, config, context)
        self.losses = stages.train_detection(detection)
        upsampling = stages.train_upsampling(self.training_steps - detection)
        self.losses += [(detection + step, loss) for step, loss in upsampling]
        self.fitted = module.eval().requires_grad_(False)

    @classmethod
    def build_module(cls, config: DsrConfig, state: Mapping[str, Tensor]) -> DsrModule:
        """Autoencoder and networks."""
        return DsrModule()


class _Stages:
    """Both stages of the training.

    Args:
        module: Whose networks are trained.
        train: Normal images.
        config: Options.
        context: Of the fit.
    """

    def __init__(self, module: DsrModule, train: ImageSet, config: DsrConfig, context: FitContext) -> None:
        self._module = module
        self._train = train
        self._config = config
        self._context = context
        self._generator = torch.Generator().manual_seed(context.seed)

    def train_detection(self, steps: int) -> list[tuple[int, float]]:
        """Train restriction, object decoder and detector; return the losses, (step, loss)."""
        module, device = self._module, self._context.device
        networks = (module.restriction_lo, module.restriction_hi, module.object_decoder, module.detector)
        optimizer = self._adam(*networks)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, round(DECAY_AT * steps)))

        def step() -> Tensor:
            images = rotate_some(self._batch(), DETECTION_ROTATION, self._generator)
            masks = anomaly_masks(len(images), self._config.image_size, self._generator).to(device)
            images = images.to(device)
            loss = module.detection_loss(images, feature_anomalies(module.vq, images, masks, self._generator))
            _update(optimizer, loss)
            schedule.step()
            return loss.detach()

        losses = run_training(step, steps, self._context, "detection")
        optimizer.zero_grad()
        return losses

    def train_upsampling(self, steps: int) -> list[tuple[int, float]]:
        """Train the upsampling network; return the losses, (step, loss)."""
        module, device = self._module, self._context.device
        optimizer = self._adam(module.upsampler)

        def step() -> Tensor:
            images = rotate_some(self._batch(), UPSAMPLING_ROTATION, self._generator)
            masks = anomaly_masks(len(images), self._config.image_size, self._generator)
            smudges = smudged(images, masks, self._generator)
            loss = module.upsampling_loss(smudges.to(device), masks.to(device))
            _update(optimizer, loss)
            return loss.detach()

        losses = run_training(step, steps, self._context, "upsampling") if steps else []
        optimizer.zero_grad()
        return losses

    def _batch(self) -> Tensor:
        """Images of a step; as in the official code, each is drawn from all, so that no batch is incomplete."""
        chosen = torch.randint(len(self._train), (self._config.batch_size,), generator=self._generator)
        return as_bgr(self._train[chosen.tolist()])

    def _adam(self, *networks: nn.Module) -> torch.optim.Optimizer:
        parameters = [parameter for network in networks for parameter in network.parameters()]
        return torch.optim.Adam(parameters, self._config.learning_rate)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
