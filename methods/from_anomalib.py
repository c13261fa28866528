"""Any image model of the installed anomalib as a detector, named ``anomalib:Padim`` or ``anomalib:Padim[backbone=…]``.

It is trained by anomalib's own engine, on the training images of the protocol alone, and then used as the network that
it is: anomalib's post-processing, which normalises and clips scores by a validation set that is by default the test
set, takes no part.
"""

import inspect
import json
import logging
import math
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.common.torchvision_import import import_torchvision
from methods.config import split_outside_brackets, unknown
from methods.detector import Detector, FitContext, ImageSet, Progress
from methods.errors import MethodError, WeightsError
from methods.training_length import Epochs
from methods.weights.files import WeightIdentity

PREFIX = "anomalib:"
SUPPORTED = "2.7"
"""Release series whose models have been tried."""
SINGLE_PASS = frozenset({"AnomalyDINO", "Dfkde", "Dfm", "Padim", "Patchcore", "Rad", "SuperADD"})
"""Models that look at each training image once, and train nothing."""
CALIBRATED = frozenset({"EfficientAd"})
"""Models that measure something on validation images."""
_NO_DOWNLOAD = re.compile(
    "LocalEntryNotFound|OfflineMode|ConnectionError|ConnectTimeout|ConnectError|URLError|HTTPError|MaxRetryError"
)

_GRAMMAR = re.compile(r"anomalib:(?P<model>\w+)(?:\[(?P<arguments>.*)\])?")


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


def is_anomalib(name: str) -> bool:
    """Whether the name of a method is that of a model of anomalib."""
    return name.startswith(PREFIX)


@cache
def anomalib_method(name: str) -> type["AnomalibDetector"]:
    """The detector that a name stands for; its model is looked at when it is built.

    Raises:
        MethodError: The name makes no sense, anomalib is not installed, not of a release series that was tried, or has
            no such model.
    """
    matched = _GRAMMAR.fullmatch(name)
    if matched is None:
        raise MethodError(
            f"{name!r} names no model of anomalib\n  Allowed: anomalib:MODEL or anomalib:MODEL[OPTION=VALUE,…], such "
            "as anomalib:Padim[backbone=resnet18]."
        )
    model, given = matched["model"], matched["arguments"] or ""
    models = anomalib_models()
    if model not in models:
        raise unknown("model of anomalib", model, models)
    arguments = {option: _absolute(value) for option, value in parse_arguments(given).items()}
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


def parse_arguments(text: str) -> dict[str, object]:
    """Read ``backbone=resnet18,layers=[layer1,layer2]``: numbers, true, false, null and lists as in JSON, else text.

    Raises:
        MethodError: A part is not of the form OPTION=VALUE.
    """
    arguments: dict[str, object] = {}
    for part in split_outside_brackets(text):
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and option.isidentifier()):
            raise MethodError(f"{part!r} is not of the form OPTION=VALUE, as the brackets of an anomalib model need")
        arguments[option] = _value(value)
    return arguments


def _value(text: str) -> object:
    if text.startswith("[") and text.endswith("]"):
        return [_value(part) for part in split_outside_brackets(text[1:-1])]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _absolute(value: object) -> object:
    """A path that exists, in full, as the fit has another current folder; other values as they are."""
    return str(Path(value).resolve()) if isinstance(value, str) and "/" in value and Path(value).exists() else value


@cache
def anomalib_models() -> tuple[str, ...]:
    """Names of all image models of the installed anomalib.

    Raises:
        MethodError: It is not installed, or not of a release series that was tried.
    """
    try:
        installed = version("anomalib")
    except PackageNotFoundError as error:
        raise MethodError(f"anomalib is not installed\n  pip install 'anomalib=={SUPPORTED}.*'") from error
    if installed.rpartition(".")[0] != SUPPORTED:
        raise MethodError(
            f"anomalib {installed} is installed, whose models have not been tried: their parts have other names in "
            f"every series\n  Install {SUPPORTED}: pip install 'anomalib=={SUPPORTED}.*'"
        )
    return tuple(_image_models().__all__)


def _image_models() -> Any:
    """The module ``anomalib.models.image``, which takes seconds to import the first time."""
    with _quiet():
        import_torchvision()
        from anomalib.models import image

        return image


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
        self._size, self._mean, self._std = _pre_processing(self.model, config.image_size)
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
        with _quiet(), _downloading(self.title, context.weights_dir), tempfile.TemporaryDirectory() as folder:
            lightning = build_model(self.model, self.arguments, self._size)
            data = _write_images(Path(folder), train, validation, batch_size, context.seed)
            losses = _run_engine(lightning, data, Path(folder), context, self.training_steps)
        self.losses = losses if self.training_steps else ()
        module = AnomalibModule(lightning.model, self._mean, self._std).to(context.device)
        self.fitted = module.eval().requires_grad_(False)

    @classmethod
    def build_module(cls, config: AnomalibConfig, state: Mapping[str, Tensor]) -> AnomalibModule:
        """The model without its pretrained weights, its memory banks as long as those to be loaded."""
        size, mean, std = _pre_processing(cls.model, config.image_size)
        with _quiet(), _without_downloads():
            model = build_model(cls.model, cls.arguments, size).model
        module = AnomalibModule(model, mean, std)
        for name, buffer in list(module.named_buffers()):
            if name in state and state[name].shape != buffer.shape:
                owner, _, own = name.rpartition(".")
                module.get_submodule(owner).register_buffer(own, torch.empty_like(state[name]))
        return module


def build_model(model: str, arguments: Mapping[str, object], size: tuple[int, int]) -> Any:
    """Build anomalib's Lightning module of a model, without what would judge or draw its results.

    Raises:
        MethodError: It does not take an argument.
    """
    kind = getattr(_image_models(), model)
    parameters = inspect.signature(kind.__init__).parameters
    allowed = [name for name in parameters if name not in ("self", "kwargs", *_COMPONENTS)]
    for name in arguments:
        if name not in parameters:
            raise unknown(f"option of anomalib's {model}", name, allowed)
    _check_textures(model, arguments)
    components: dict[str, object] = {name: False for name in _COMPONENTS if name in parameters}
    components["pre_processor"] = kind.configure_pre_processor(size)
    try:
        return kind(**components, **arguments)
    except (TypeError, ValueError) as error:
        raise MethodError(f"anomalib's {model} does not take its options: {error}") from error


def _check_textures(model: str, arguments: Mapping[str, object]) -> None:
    """Refuse to build a model that would download textures, and next time go on without them where it could not."""
    option = _TEXTURES.get(model)
    if option is None:
        return
    folder = arguments.get(option)
    if not (isinstance(folder, str) and Path(folder).is_dir() and any(Path(folder).rglob("*.[jJpP][pPnN]*"))):
        raise WeightsError(
            f"anomalib's {model} needs photographs of textures, and after a failed download of them it would go on "
            f"without: give their folder, anomalib:{model}[{option}=/path/to/dtd]"
        )


_TEXTURES = {"Draem": "dtd_dir", "Glass": "anomaly_source_path"}
_COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")


def _batch_size(model: str, config: AnomalibConfig) -> int:
    return 1 if model == "EfficientAd" else config.batch_size


def _pre_processing(model: str, size: tuple[int, int] | None) -> tuple[tuple[int, int], Tensor, Tensor]:
    """The size of a model's images, and the mean and standard deviation of its normalisation, (3,) each.

    A centre crop is left out: the whole image is resized to what it would have left (the protocol's rule).
    """
    with _quiet():
        processor = getattr(_image_models(), model).configure_pre_processor(size)
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


class _Recorder:
    """Keeps the losses that anomalib reports, and passes on how far it is."""

    def __init__(self, context: FitContext, steps: int) -> None:
        self.losses: list[tuple[int, float]] = []
        self._context = context
        self._steps = steps
        self._done = 0

    def __call__(self, output: object) -> None:
        self._done += 1
        loss = output.get("loss") if isinstance(output, Mapping) else output
        value = float(loss.detach()) if isinstance(loss, Tensor) and loss.numel() == 1 else None
        if value is not None:
            if not math.isfinite(value):
                raise MethodError(f"the loss of step {self._done} is {value}: training diverged")
            self.losses.append((self._done, value))
        self._context.progress(Progress("training", min(self._done, self._steps), self._steps, value))


def _write_images(folder: Path, train: ImageSet, validation: ImageSet, batch_size: int, seed: int) -> Any:
    """Write the images into a folder, and return it as anomalib's data module, which has no others."""
    from anomalib.data import Folder
    from PIL import Image

    for name, images in (("train", train), ("validation", validation)):
        if len(images):
            (folder / "images" / name).mkdir(parents=True)
        for index in range(len(images)):
            pixels = images[index].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / "images" / name / f"{index:06}.png")
    held_out: dict[str, object] = {"val_split_mode": "none", "test_split_mode": "none"}
    if len(validation):
        held_out = {"normal_test_dir": "validation", "val_split_mode": "same_as_test", "test_split_mode": "from_dir"}
    return Folder(
        name="images",
        root=folder / "images",
        normal_dir="train",
        train_batch_size=batch_size,
        eval_batch_size=1,
        num_workers=0,
        seed=seed,
        **held_out,
    )


def _run_engine(
    lightning: Any, data: Any, folder: Path, context: FitContext, steps: int | None
) -> list[tuple[int, float]]:
    """Train by anomalib's engine; return the losses, (step, loss)."""
    from anomalib.engine import Engine
    from lightning.pytorch.callbacks import Callback

    data.setup("fit")
    batches = len(data.train_dataloader())
    recorder = _Recorder(context, steps or batches)

    class Report(Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: object, batch: object, index: int) -> None:
            recorder(outputs)

    length = {} if steps is None else {"max_steps": steps, "max_epochs": -(-steps // batches)}
    validates = {} if data.val_split_mode.value != "none" else {"limit_val_batches": 0}
    engine = Engine(
        callbacks=[Report()],
        accelerator="cpu" if context.device.type == "cpu" else "gpu",
        devices=1 if context.device.index is None else [context.device.index],
        logger=False,
        default_root_dir=folder / "results",
        enable_progress_bar=False,
        enable_model_summary=False,
        **length,
        **validates,
    )
    engine.fit(lightning, datamodule=data)
    return recorder.losses


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the warnings of anomalib's imports, and what Lightning says of its hardware, from the user."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


@contextmanager
def _downloading(title: str, weights_dir: Path) -> Iterator[None]:
    """Keep what anomalib downloads, some of it into the current folder, and turn the many errors of that into one.

    Raises:
        WeightsError: A download failed.
    """
    (weights_dir / "anomalib").mkdir(parents=True, exist_ok=True)
    try:
        with chdir(weights_dir / "anomalib"):
            yield
    except Exception as error:
        chain: list[BaseException] = []
        cause: BaseException | None = error
        while cause is not None:
            chain.append(cause)
            cause = cause.__cause__ or cause.__context__
        if not any(_NO_DOWNLOAD.search(type(one).__name__) for one in chain):
            raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{title} wants to download something and cannot: {first}\n"
            "  Fit it once on a machine with network access, and bring that machine's caches ($HF_HOME and\n"
            "  $TORCH_HOME) here; or give a model that needs nothing, such as [pre_trained=false]."
        ) from error


@contextmanager
def _without_downloads() -> Iterator[None]:
    """Let timm and torchvision build networks with random weights, whatever a model asks for."""
    import timm
    from torchvision.models._api import WeightsEnum

    create: Callable[..., Any] = timm.create_model
    states = WeightsEnum.get_state_dict

    def plain(*arguments: Any, **options: Any) -> Any:
        return create(*arguments, **{**options, "pretrained": False})

    def nothing(*_: Any, **__: Any) -> Mapping[str, Tensor]:
        return {}

    load = nn.Module.load_state_dict

    def lenient(module: nn.Module, state: Mapping[str, Any], *arguments: Any, **options: Any) -> Any:
        return load(module, state, *arguments, **options) if state else None

    timm.create_model, WeightsEnum.get_state_dict, nn.Module.load_state_dict = plain, nothing, lenient  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        timm.create_model, WeightsEnum.get_state_dict, nn.Module.load_state_dict = create, states, load  # type: ignore[method-assign]
