"""Training of a model by anomalib's own engine, on images that are given to it and no others."""

import inspect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from methods.config import unknown
from methods.detector import FitContext, ImageSet, Progress
from methods.errors import MethodError, WeightsError
from methods.from_anomalib.models import image_models

_NO_DOWNLOAD = re.compile(
    "LocalEntryNotFound|OfflineMode|ConnectionError|ConnectTimeout|ConnectError|URLError|HTTPError|MaxRetryError"
)
_TEXTURES = {"Draem": "dtd_dir", "Glass": "anomaly_source_path"}
_COMPONENTS = ("pre_processor", "post_processor", "evaluator", "visualizer")


def build_model(model: str, arguments: Mapping[str, object], size: tuple[int, int]) -> Any:
    """Build anomalib's Lightning module of a model, without what would judge or draw its results.

    Raises:
        MethodError: It does not take an argument.
    """
    kind = getattr(image_models(), model)
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


def write_images(folder: Path, train: ImageSet, validation: ImageSet, batch_size: int, seed: int) -> Any:
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


def run_engine(
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
def downloading(title: str, weights_dir: Path) -> Iterator[None]:
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
def without_downloads() -> Iterator[None]:
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
