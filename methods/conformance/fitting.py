"""What a detector does while it is fitted."""

import math

import torch
from torch import nn

from methods.conformance.check import BrokenPromiseError, Check, DoesNotApplyError, check
from methods.conformance.comparing import require_identical, share_not_finite
from methods.conformance.images import WatchedPhotographs
from methods.conformance.subject import Subject
from methods.detector import Prediction
from methods.errors import MethodError
from methods.training_length import optimiser_steps


@check(
    "fit",
    "A detector can be fitted on a few normal images, and predicts images of its size then.",
    "Mend the error; the other checks look at the same fit, so they follow it.",
)
def fit(subject: Subject) -> None:
    """Fit, and predict."""
    _ = subject.trial


@check(
    "determinism",
    "A fit with the same seed on the same images predicts the same, bit for bit.",
    "Draw from generators seeded with context.seed, or from the global ones, which are seeded during a fit; "
    "never from time, the process or the order of a set.",
)
def determinism(subject: Subject) -> None:
    """Fit once more with the seed of the trial."""
    trial = subject.trial
    torch.rand(7)  # the global generators are seeded for each fit, wherever they are
    context = subject.context(photographs=WatchedPhotographs())
    again = subject.fit(subject.training_images(), context).predict(subject.images)
    require_identical(again, trial.prediction, "Two fits with seed 0")


@check(
    "observed",
    "A fit whose states are looked at, epoch by epoch, is the same fit; the last of them is the fitted detector.",
    "Let methods.common.training.train show the module, and let nothing of the fit depend on context.observe.",
)
def observed(subject: Subject) -> None:
    """Fit with an observer, and predict with the states that it is shown."""
    trial, shown = subject.trial, []

    def look(epoch: float, module: nn.Module) -> None:
        with torch.inference_mode():
            shown.append((epoch, Prediction(*module(subject.images))))

    again = subject.fit(subject.training_images(), subject.context(photographs=WatchedPhotographs(), observe=look))
    require_identical(again.predict(subject.images), trial.prediction, "A fit that is observed and one that is not")
    if not shown:
        raise DoesNotApplyError("it shows no states of its training")
    epochs = [epoch for epoch, _ in shown]
    if epochs != sorted(set(epochs)) or epochs[0] <= 0:
        raise BrokenPromiseError(f"The states are said to be those after {epochs} epochs.")
    require_identical(shown[-1][1], trial.prediction, "The last state shown and the fitted detector")


@check(
    "one-image",
    "One training image is enough, or a MethodError says how many are needed.",
    "Look at len(train) at the start of fit(), and at every standard deviation and split of the images.",
)
def one_image(subject: Subject) -> None:
    """Fit on a single image, with another seed."""
    _ = subject.trial
    try:
        detector = subject.fit(subject.training_images(1), subject.context(seed=1))
    except MethodError:
        return
    maps = detector.predict(subject.unseen(0, 1)).maps
    if not maps.isfinite().all():
        raise BrokenPromiseError(
            f"{share_not_finite(maps)} of the maps' values are not finite after a fit on one image."
        )


@check(
    "gray",
    "Gray images, a black and a white one among them, are as good as others.",
    "Look for a division by the deviation of a channel or image, which may be zero.",
)
def gray(subject: Subject) -> None:
    """Fit on gray images; predict gray, black and white ones."""
    _ = subject.trial
    detector = subject.fit(subject.training_images(gray=True), subject.context(seed=1))
    images = subject.unseen(3, gray=True)
    images[1], images[2] = 0, 255
    maps = detector.predict(images).maps
    if not maps.isfinite().all():
        raise BrokenPromiseError(
            f"{share_not_finite(maps)} of the values of gray, black and white images' maps are not finite."
        )


@check(
    "constant",
    "Training images of one colour, all the same, are enough, or a MethodError says that they are not.",
    "Look for a division by the deviation of pixels, features or maps, which may be zero.",
)
def constant(subject: Subject) -> None:
    """Fit on images without any structure."""
    _ = subject.trial
    images = torch.tensor([40, 120, 200], dtype=torch.uint8).view(1, 3, 1, 1).repeat(2, 1, *subject.size)
    try:
        detector = subject.fit(images, subject.context(seed=1))
    except MethodError:
        return
    maps = detector.predict(subject.unseen(0, 1)).maps
    if not maps.isfinite().all():
        raise BrokenPromiseError(
            f"{share_not_finite(maps)} of the maps' values are not finite after a fit on images of one colour."
        )


@check(
    "progress",
    "A fit says how far it is: at least once, with 0 < done <= total.",
    "Call context.progress(Progress(stage, done, total)) in the loop over steps or images.",
)
def progress(subject: Subject) -> None:
    """Look at what the trial reported."""
    reports = subject.trial.progress
    if not reports:
        raise BrokenPromiseError("The fit reported nothing.")
    for report in reports:
        if not 0 < report.done <= report.total:
            raise BrokenPromiseError(f"Stage {report.stage!r} reported {report.done} of {report.total}.")


@check(
    "training-length",
    "A fit takes the optimiser steps that training_length() says, times the training scale, and keeps their losses.",
    "Set training_steps to context.training_steps(...) of the length and losses to (step, loss) pairs in fit(); "
    "a method that does not train leaves both alone.",
)
def training_length(subject: Subject) -> None:
    """Compare the declared training length with the trial's."""
    length = subject.method.training_length(subject.config)
    detector = subject.trial.detector
    images = len(subject.training_images())
    expected = None if length is None else subject.context().training_steps(optimiser_steps(length, images))
    if detector.training_steps != expected:
        raise BrokenPromiseError(
            f"training_length() says {length}; after the fit training_steps is {detector.training_steps}."
        )
    if expected is not None and not detector.losses:
        raise BrokenPromiseError(f"It trained {expected} steps and kept no loss.")
    for step, loss in detector.losses:
        if not (expected is not None and 1 <= step <= expected and math.isfinite(loss)):
            raise BrokenPromiseError(f"The loss of step {step} of {expected} is {loss}.")


@check(
    "validation",
    "Held-out images are read by a method that declares uses_validation; any other is given none.",
    "Set uses_validation = False: the images held out for this method are lost to its training.",
)
def validation(subject: Subject) -> None:
    """Look whether the trial read the validation images."""
    trial = subject.trial
    if not subject.method.uses_validation:
        raise DoesNotApplyError("it declares uses_validation = False, and was fitted without any")
    if not trial.validation_read:
        raise BrokenPromiseError("uses_validation is True, and the fit did not read a validation image.")


@check(
    "photographs",
    "FitContext.photographs are read by a method that declares uses_photographs, and by no other.",
    "Set uses_photographs to whether fit() reads them: only then does the row say which they are.",
)
def photographs(subject: Subject) -> None:
    """Look whether the trial asked for photographs."""
    read, declared = subject.trial.photographs_read, subject.method.uses_photographs
    if read != declared:
        raise BrokenPromiseError(f"uses_photographs is {declared}, and the fit {'asked' if read else 'did not ask'}.")


@check(
    "files",
    "A fit and a prediction write no file beside those of weights_dir and of the module tempfile.",
    "Keep what is computed in memory, or in a tempfile.TemporaryDirectory(); download into context.weights_dir.",
)
def files(subject: Subject) -> None:
    """Look at the files written in the trial."""
    if subject.trial.stray_files:
        raise BrokenPromiseError(f"It wrote {', '.join(subject.trial.stray_files)}.")


@check(
    "global-state",
    "A fit and a prediction leave random generators and settings of the process as they were.",
    "Predict without drawing random numbers; change a setting within a with-block that puts it back.",
)
def global_state(subject: Subject) -> None:
    """Look at what the trial left changed. The generators are put back after a fit, so there only settings count."""
    if subject.trial.changes:
        raise BrokenPromiseError(" ".join(subject.trial.changes))


CHECKS: tuple[Check, ...] = (
    fit,
    determinism,
    observed,
    one_image,
    gray,
    constant,
    progress,
    training_length,
    validation,
    photographs,
    files,
    global_state,
)
