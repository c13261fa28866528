"""The contract between the runner and every anomaly detector."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from methods.config import deviations
from methods.errors import MethodError
from methods.training_length import TrainingLength, scaled_steps
from methods.weights.files import WeightIdentity, default_weights_directory
from methods.weights.sources import backbone_files
from methods.weights.states import load_fitted

ConfigT = TypeVar("ConfigT")
"""A method's options: a frozen dataclass whose defaults are the paper's."""


class ImageSet:
    """Images of one size, and nothing else: no labels, masks or paths can be reached from it.

    Args:
        pixels: uint8 tensor of shape (N, 3, H, W), values 0-255, RGB.
        indices: The images of ``pixels`` that belong to this set, in order; all when ``None``.
    """

    def __init__(self, pixels: Tensor, indices: Sequence[int] | None = None) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"images are uint8 (N, 3, H, W), got {pixels.dtype} {tuple(pixels.shape)}")
        self._pixels = pixels
        self._indices = torch.as_tensor(range(len(pixels)) if indices is None else indices, dtype=torch.long)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self._pixels.shape[2]), int(self._pixels.shape[3])

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Tensor:
        """One image, uint8 (3, H, W), for an integer; else a batch, uint8 (B, 3, H, W)."""
        if isinstance(index, Sequence):
            index = torch.as_tensor(index, dtype=torch.long)
        return self._pixels[self._indices[index]]

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield all images in order as uint8 tensors (B, 3, H, W) with B <= ``size``."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


class ImageSource(Protocol):
    """A folder of everyday photographs that stands in for, or is, the pretraining data set."""

    @property
    def identity(self) -> str:
        """What the result row calls it: a name, the number of images and a fingerprint."""

    def images(
        self,
        size: tuple[int, int],
        *,
        center_crop: tuple[int, int] | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> ImageSet:
        """Decode the photographs, resized bilinearly to ``size`` and cropped to ``center_crop``.

        Args:
            size: Height and width that the whole photograph is resized to.
            center_crop: Height and width kept of the centre afterwards; everything when ``None``.
            limit: At most so many photographs, a random choice drawn from ``seed``, in random order.
            seed: Of that choice. The same arguments give the same images in the same order.
        """


@dataclass(frozen=True)
class Progress:
    """One step of a running fit, for display: ``done`` of ``total`` units of ``stage``."""

    stage: str
    done: int
    total: int
    loss: float | None = None


def _no_progress(_: Progress) -> None:
    pass


@dataclass(frozen=True)
class FitContext:
    """Everything besides the images that a fit may depend on.

    Attributes:
        seed: Seeds every random choice of the fit.
        device: Where the networks run.
        train_scale: Multiplies the training length; 1 is the method's own.
        weights_dir: Where downloaded weights are kept.
        photographs: Images for the pretraining penalty or for distillation; ``None`` when there are none.
        force_precision: Train in a precision for which the CPU has no instructions, though that takes ages.
        progress: Called often; must be cheap.
        observe: Is shown the module at the end of every epoch of its training, in evaluation mode, with how many
            epochs are done; it must change nothing. What a stopping rule that looks at test images would gain is
            measured so, without any method having one.
    """

    seed: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    train_scale: float = 1.0
    weights_dir: Path = field(default_factory=default_weights_directory)
    photographs: ImageSource | None = None
    force_precision: bool = False
    progress: Callable[[Progress], None] = _no_progress
    observe: Callable[[float, nn.Module], None] | None = None

    def training_steps(self, training_length: int) -> int:
        """``training_length`` optimiser steps, scaled by ``train_scale``; at least one."""
        return scaled_steps(training_length, self.train_scale)


@dataclass(frozen=True)
class Prediction:
    """What a detector says about a batch of images.

    Attributes:
        maps: float32 (B, h, w), higher is more anomalous.
        scores: float32 (B,), likewise.
    """

    maps: Tensor
    scores: Tensor


class Detector(ABC, Generic[ConfigT]):
    """One anomaly detection method, fitted on normal images only.

    A subclass names itself in ``title`` and ``source``, declares its options in a frozen dataclass ``Config`` whose
    defaults are the paper's, and says in :meth:`weights` which pretrained weights they name. Once fitted, it is one
    ``nn.Module`` with one ``state_dict`` (:meth:`module`), by which it is evaluated, timed, exported and saved.
    """

    title: ClassVar[str]
    """As tables print it, for example ``EfficientAD-S``."""
    source: ClassVar[str]
    """The paper: authors, venue, year."""
    status: ClassVar[str] = ""
    """How far it is known to do what its paper says: ``reproduced``, ``faithful, not yet reproduced``, or
    ``reimplementation, details of the paper unknown``."""
    Config: ClassVar[type[Any]]
    """Frozen dataclass of the method's options."""
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Named sets of option values. ``embedded`` needs no download; nor does ``demo``, which the demo takes by itself,
    and with which a fit takes two CPU cores a minute or two."""
    uses_validation: ClassVar[bool] = False
    """Whether the fit calibrates on held-out normal images. If not, none are held out for it, as in the official codes
    of such methods: it is fitted on all normal training images."""
    uses_photographs: ClassVar[bool] = False
    """Whether the fit reads ``FitContext.photographs``; if so, a result row says which they are."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Installed packages whose versions may change a result: another version makes it another cell."""
    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Options that change how a result is computed, and not what it is: no deviation from the paper."""
    fused: ClassVar[str] = ""
    """What is algebraically fused, so that FLOPs are fewer than the official code's; empty if nothing."""

    config: ConfigT
    input_size: tuple[int, int]
    """Height and width it wants its images in."""
    fitted: nn.Module | None = None
    """What the fit leaves, in evaluation mode and without gradients: see :meth:`module`."""
    training_steps: int | None = None
    """Optimiser steps of the fit; ``None`` before it and for a method that does not train."""
    losses: Sequence[tuple[int, float]] = ()
    """Training loss of the fit, (step, loss)."""
    implementation: Mapping[str, str] = {}
    """Which of several equivalent paths were taken, for the record: ``{"training step": "fast"}``."""

    @abstractmethod
    def __init__(self, config: ConfigT) -> None: ...

    @classmethod
    @abstractmethod
    def weights(cls, config: ConfigT, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the pretrained weights that ``config`` uses, without loading the networks.

        Raises:
            WeightsError: A weights file is missing; the message says how to get it.
        """

    @classmethod
    def weight_files(cls, config: ConfigT) -> list[str]:
        """Name the files of :mod:`methods.weights.catalogue` that :meth:`weights` reads; fetches nothing.

        These are the backbones'; a method that builds on others adds them.
        """
        return backbone_files(config)

    @classmethod
    def training_length(cls, config: ConfigT) -> TrainingLength | None:
        """Optimiser steps at training scale 1, or epochs; ``None`` for a method that does not train.

        Of :class:`methods.training_length.Epochs`, :func:`methods.training_length.optimiser_steps` are as many as the
        training images make them.
        """
        return None

    @classmethod
    def deviations(cls, config: ConfigT, context: FitContext) -> list[str]:
        """What distinguishes this row from the paper's configuration, one short phrase each; empty if nothing.

        That is every option that is not at its default, the training length if it is another, and the photographs if
        they are not the paper's. What a method cannot see, such as the precision, the runner adds.
        """
        photographs = context.photographs.identity if context.photographs is not None else None
        return deviations(cls, config, context.train_scale, photographs)

    @abstractmethod
    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Fit on normal images of size ``input_size``.

        Called within :func:`methods.common.seeding.reproducible`: the global random generators are seeded.

        Args:
            train: Normal images.
            validation: Held-out normal images; empty unless ``uses_validation``.
            context: Everything else that the fit may depend on.
        """

    def module(self) -> nn.Module:
        """The fitted detector: images to anomaly maps and image scores.

        Its forward takes images (B, 3, H, W) of ``input_size``, uint8 0-255 or floating 0-1, on its own device, and
        returns float32 maps (B, h, w) of the whole image and float32 scores (B,), higher is more anomalous. Its
        ``state_dict`` holds everything that inference needs. An attribute ``networks`` names the sub-modules that
        half precision casts; see :mod:`methods.common.precision`. An attribute ``memory_bank``, of it or of a module
        within, names the buffers that hold features of training images: they are counted apart from parameters.

        Raises:
            RuntimeError: The detector has not been fitted.
        """
        if self.fitted is None:
            raise RuntimeError(f"{self.title} has not been fitted")
        return self.fitted

    def fused_module(self) -> nn.Module:
        """The fitted detector for inference alone: :meth:`module` with operations merged, the same but for rounding.

        Raises:
            MethodError: The method has no such form, or not with these options.
            RuntimeError: The detector has not been fitted.
        """
        raise MethodError(f"{self.title} has no fused form of its own: its module is the fastest that there is")

    @classmethod
    @abstractmethod
    def build_module(cls, config: ConfigT, state: Mapping[str, Tensor]) -> nn.Module:
        """Build the module of a detector with these options, for a state to be loaded.

        Args:
            config: Options.
            state: What will be loaded, for the shapes that depend on the fit, such as a memory bank's. It may be that
                of another detector, which :meth:`restore` refuses.
        """

    @classmethod
    def restore(cls, config: ConfigT, state: Mapping[str, Tensor]) -> Self:
        """Rebuild a fitted detector on the CPU from the ``state_dict`` of its :meth:`module`; loads no other weights.

        Raises:
            MethodError: The state is not that of a detector with these options.
        """
        with torch.random.fork_rng([]):  # the initial weights, which the state replaces, are drawn
            module = cls.build_module(config, state)
        load_fitted(module, state, cls.title)
        detector = cls(config)
        detector.fitted = module.eval().requires_grad_(False)
        return detector

    def predict(self, images: Tensor) -> Prediction:
        """Anomaly maps and image scores of images as :meth:`module` takes them, on whatever device they are."""
        module = self.module()
        tensors = [*module.parameters(), *module.buffers()]
        with torch.inference_mode():
            maps, scores = module(images.to(tensors[0].device) if tensors else images)
        return Prediction(maps, scores)
