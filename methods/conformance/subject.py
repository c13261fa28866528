"""A detector under examination: what all checks share, so that it is fitted once and not once per check."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from methods.common.seeding import reproducible
from methods.config import make_config
from methods.conformance.images import WatchedImages, WatchedPhotographs, defective, striped
from methods.conformance.watch import settings, stray, temporary_files_in, written_files
from methods.detector import Detector, FitContext, ImageSet, Prediction, Progress
from methods.errors import MethodError
from methods.weights.files import default_weights_directory

CPU = torch.device("cpu")


class TrialError(Exception):
    """Fitting the detector on a few images, or predicting some, failed.

    Args:
        cause: What it raised.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True)
class Sight:
    """A prediction, and what became of the images.

    Attributes:
        prediction: Of the images.
        overwritten: Part of their pixel values that the prediction overwrote.
    """

    prediction: Prediction
    overwritten: float


def see(predict: Callable[[Tensor], Prediction], images: Tensor) -> Sight:
    """Predict images (B, 3, H, W), and look at them afterwards."""
    before = images.clone()
    prediction = predict(images)
    return Sight(prediction, float((images != before).float().mean()))


@dataclass(frozen=True)
class Trial:
    """A fit on a few normal images and a prediction, with all that happened meanwhile.

    Attributes:
        detector: The fitted detector.
        prediction: Of ``Subject.images``.
        overwritten: Part of these images' pixel values that the prediction overwrote.
        progress: What the fit reported.
        stray_files: Paths it wrote to beside those it may.
        changes: What the fit or the prediction changed of what it shares with the process, a sentence each.
        validation_read: Whether the fit read held-out images.
        photographs_read: Whether the fit asked for photographs.
    """

    detector: Detector[Any]
    prediction: Prediction
    overwritten: float
    progress: tuple[Progress, ...]
    stray_files: list[str]
    changes: tuple[str, ...]
    validation_read: bool
    photographs_read: bool


class Subject:
    """A detector under examination, with options that make it small.

    It has a temporary folder of its own, ``scratch``, in which the detector may write.

    Args:
        method: The detector's class.
        options: Values of its options, as ``--set`` takes them, with which it is fitted in seconds, on the CPU and
            without a download.
        exceptions: Checks that are not made, by name, each with the reason.

    Raises:
        MethodError: An option that does not exist, or a value that it does not take.
    """

    def __init__(
        self,
        method: type[Detector[Any]],
        options: Mapping[str, object] | None = None,
        *,
        exceptions: Mapping[str, str] | None = None,
    ) -> None:
        self.method = method
        self.options = dict(options or {})
        self.exceptions = dict(exceptions or {})
        self.weights_dir = default_weights_directory()
        self.scratch = Path(tempfile.mkdtemp(prefix="conformance-"))
        weakref.finalize(self, shutil.rmtree, self.scratch, ignore_errors=True)
        self._trial: Trial | TrialError | None = None
        self._config: Any = None
        try:
            self._config = make_config(method, None, self.options)
        except MethodError:
            raise
        except Exception as error:  # of a Config that is no proper dataclass: the checks say so
            self._config_error = error

    @property
    def config(self) -> Any:
        """The detector's options."""
        if self._config is None:
            raise self._config_error
        return self._config

    @property
    def trial(self) -> Trial:
        """The fit that most checks look at.

        Raises:
            TrialError: It failed.
        """
        if self._trial is None:
            try:
                self._trial = self._try()
            except Exception as error:
                self._trial = TrialError(error)
        if isinstance(self._trial, TrialError):
            raise self._trial
        return self._trial

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width that the detector wants its images in."""
        return self.method(self.config).input_size

    def training_images(self, count: int = 2, *, gray: bool = False) -> Tensor:
        """Normal images for a fit, uint8 (count, 3, H, W)."""
        return striped(count, self.size, seed=1, gray=gray)

    def unseen(self, normal: int, anomalous: int = 0, *, gray: bool = False) -> Tensor:
        """Images that no fit sees, uint8 (normal + anomalous, 3, H, W), the normal ones first."""
        images = striped(normal + anomalous, self.size, seed=2, gray=gray)
        return torch.cat([images[:normal], defective(images[normal:])])

    @property
    def images(self) -> Tensor:
        """What the trial predicts, uint8 (2, 3, H, W): a normal image and one with a defect, anew at each call."""
        return self.unseen(1, 1)

    @cached_property
    def floating(self) -> Sight:
        """The same images, floating 0-1."""
        return see(self.trial.detector.predict, self.images / 255)

    @cached_property
    def direct(self) -> Sight:
        """The same images by the module itself, while gradients are computed."""
        module = self.trial.detector.module()
        with torch.enable_grad():
            return see(lambda images: Prediction(*module(images)), self.images)

    def held_out(self) -> Tensor:
        """Validation images, uint8 (N, 3, H, W): none for a method that does not use any."""
        return striped(1 if self.method.uses_validation else 0, self.size, seed=3)

    def fit(self, train: Tensor, context: FitContext, validation: ImageSet | None = None) -> Detector[Any]:
        """Fit a new detector on uint8 images (N, 3, H, W), as the runner does.

        Args:
            train: Normal images.
            context: What else the fit may depend on.
            validation: Held-out images; those of :meth:`held_out` when ``None``.
        """
        detector = self.method(self.config)
        with reproducible(context.seed, CPU), temporary_files_in(self.scratch):
            detector.fit(ImageSet(train), validation or ImageSet(self.held_out()), context)
        return detector

    def context(self, seed: int = 0, **others: Any) -> FitContext:
        """What a fit may depend on besides its images."""
        return FitContext(seed, weights_dir=self.weights_dir, **others)

    def _try(self) -> Trial:
        progress: list[Progress] = []
        photographs, validation = WatchedPhotographs(), WatchedImages(self.held_out())
        context = self.context(photographs=photographs, progress=progress.append)
        images = self.images
        with written_files() as written:
            before = settings()
            detector = self.fit(self.training_images(), context, validation)
            between = settings()
            sight = see(detector.predict, images)
            after = settings()
        changes = [f"Fitting changed {name}." for name in before if before[name] != between[name]]
        changes += [f"Predicting changed {name}." for name in after if between[name] != after[name]]
        return Trial(
            detector=detector,
            prediction=sight.prediction,
            overwritten=sight.overwritten,
            progress=tuple(progress),
            stray_files=stray(written, [self.scratch, self.weights_dir]),
            changes=tuple(changes),
            validation_read=validation.read,
            photographs_read=photographs.read,
        )
