"""Any image model of the installed anomalib as a detector, named ``anomalib:Padim`` or ``anomalib:Padim[backbone=…]``.

It is trained by anomalib's own engine, on the training images of the protocol alone, and then used as the network that
it is: anomalib's post-processing, which normalises and clips scores by a validation set that is by default the test
set, takes no part.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.config import unknown
from methods.detector import Detector, FitContext, ImageSet
from methods.errors import MethodError
from methods.from_anomalib.models import absolute, anomalib_models, image_models, parse_arguments, parse_name, quiet
from methods.from_anomalib.training import build_model, downloading, run_engine, without_downloads, write_images
from methods.training_length import Epochs
from methods.weights.files import WeightIdentity

SINGLE_PASS = frozenset({"AnomalyDINO", "Dfkde", "Dfm", "Padim", "Patchcore", "Rad", "SuperADD"})
"""Models that look at each training image once, and train nothing."""
CALIBRATED = frozenset({"EfficientAd"})
"""Models that measure something on validation images."""


@dataclass(frozen=True)
class AnomalibConfig:
    """Options of every model of anomalib; those of the model itself stand in brackets behind its name.

    Attributes:
        image_size: Height and width in pixels; the model's own when ``None``.
        epochs: Passes over the training images, of a model that trains. anomalib leaves it to its user; our choice.
        batch_size: Images per step; 1 for EfficientAd, which takes no other.
    """

    image_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] | None = None
    epochs: Annotated[int, Field(gt=0)] = 100
    batch_size: Annotated[int, Field(gt=0)] = 32


@cache
def anomalib_method(name: str) -> type["AnomalibDetector"]:
    """The detector that a name stands for; its model is looked at when it is built.

    Raises:
        MethodError: The name makes no sense, anomalib is not installed, not of a release series that was tried, or has
            no such model.
    """
    model, given = parse_name(name)
    models = anomalib_models()
    if model not in models:
        raise unknown("model of anomalib", model, models)
    arguments = {option: absolute(value) for option, value in parse_arguments(given).items()}
    return type(
        f"Anomalib{model}",
        (AnomalibDetector,),
        {
            "__doc__": f"{model} of anomalib.",
            "__module__": __name__,
            "title": f"anomalib {model}" + (f" [{given}]" if given else ""),
            "model": model,
            "arguments": arguments,
            "uses_validation": model in CALIBRATED,
        },
    )


class AnomalibModule(nn.Module):
    """A fitted model of anomalib with its normalisation.

    Args:
        model: Its torch model.
        mean: Of the channels of its images, (3,); zeros for a model that takes plain ones.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.register_buffer("std", std.view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, h, w) and image scores (B,), both raw, of images (B, 3, H, W).

        Raises:
            MethodError: The model makes no anomaly map.
        """
        pixels = images / 255 if images.dtype == torch.uint8 else images.float()
        output = self.model((pixels - self.mean) / self.std)
        maps, scores = output.anomaly_map, output.pred_score
        if maps is None:
            raise MethodError("this model of anomalib makes no anomaly maps, only image scores")
        maps = maps.float().reshape(len(images), *maps.shape[-2:])
        scores = maps.flatten(1).amax(1) if scores is None else scores.float().reshape(len(images))
        return maps, scores


class AnomalibDetector(Detector[AnomalibConfig]):
    """A model of anomalib; see :func:`anomalib_method`."""

    source = "anomalib, Akcay et al., ICIP 2022, and the model's paper"
    Config = AnomalibConfig
    packages = ("anomalib", "torch", "torchvision", "timm", "lightning")
    model: ClassVar[str]
    arguments: ClassVar[Mapping[str, object]]

    def __init__(self, config: AnomalibConfig) -> None:
        self.config = config
        self._size, self._mean, self._std = pre_processing(self.model, config.image_size)
        self.input_size = self._size

    @classmethod
    def weights(cls, config: AnomalibConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Name the weights: which they are, and where they are kept, is anomalib's business."""
        return [WeightIdentity(f"those of anomalib's {cls.model}", "download", f"anomalib {version('anomalib')}", None)]

    @classmethod
    def training_length(cls, config: AnomalibConfig) -> Epochs | None:
        """Passes over the training images; ``None`` for a model that looks at them once."""
        return None if cls.model in SINGLE_PASS else Epochs(config.epochs, _batch_size(cls.model, config))

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Let anomalib's engine train the model on these images; ``validation`` is used by models that calibrate.

        Raises:
            MethodError: There are no training images, or anomalib refuses its options.
            WeightsError: The model wants to download something and cannot.
        """
        if len(train) == 0:
            raise MethodError(f"{self.title} needs at least one training image and was given none")
        length = self.training_length(self.config)
        self.training_steps = None if length is None else context.training_steps(length.steps(len(train)))
        batch_size = _batch_size(self.model, self.config)
        with quiet(), downloading(self.title, context.weights_dir), tempfile.TemporaryDirectory() as folder:
            lightning = build_model(self.model, self.arguments, self._size)
            data = write_images(Path(folder), train, validation, batch_size, context.seed)
            losses = run_engine(lightning, data, Path(folder), context, self.training_steps)
        self.losses = losses if self.training_steps else ()
        module = AnomalibModule(lightning.model, self._mean, self._std).to(context.device)
        self.fitted = module.eval().requires_grad_(False)

    @classmethod
    def build_module(cls, config: AnomalibConfig, state: Mapping[str, Tensor]) -> AnomalibModule:
        """The model without its pretrained weights, its memory banks as long as those to be loaded."""
        size, mean, std = pre_processing(cls.model, config.image_size)
        with quiet(), without_downloads():
            model = build_model(cls.model, cls.arguments, size).model
        module = AnomalibModule(model, mean, std)
        for name, buffer in list(module.named_buffers()):
            if name in state and state[name].shape != buffer.shape:
                owner, _, own = name.rpartition(".")
                module.get_submodule(owner).register_buffer(own, torch.empty_like(state[name]))
        return module


def _batch_size(model: str, config: AnomalibConfig) -> int:
    return 1 if model == "EfficientAd" else config.batch_size


def pre_processing(model: str, size: tuple[int, int] | None) -> tuple[tuple[int, int], Tensor, Tensor]:
    """The size of a model's images, and the mean and standard deviation of its normalisation, (3,) each.

    A centre crop is left out: the whole image is resized to what it would have left (the protocol's rule).
    """
    with quiet():
        processor = getattr(image_models(), model).configure_pre_processor(size)
        from torchvision.transforms import v2

    transforms = list(_steps(processor.transform))
    sizes = [tuple(one.size) for one in transforms if isinstance(one, v2.Resize | v2.CenterCrop) and len(one.size) == 2]
    normalisations = [one for one in transforms if isinstance(one, v2.Normalize)]
    mean = torch.tensor(normalisations[-1].mean if normalisations else [0.0] * 3, dtype=torch.float32)
    std = torch.tensor(normalisations[-1].std if normalisations else [1.0] * 3, dtype=torch.float32)
    height, width = size or (sizes[-1] if sizes else (256, 256))
    return (int(height), int(width)), mean, std


def _steps(transform: Any) -> Iterator[Any]:
    """The transforms one after another that a composed one, which is no container of modules, is made of."""
    parts = getattr(transform, "transforms", None)
    if parts is None:
        yield from () if transform is None else (transform,)
    else:
        for part in parts:
            yield from _steps(part)
