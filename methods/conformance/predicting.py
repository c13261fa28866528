"""What a fitted detector predicts."""

import torch
from torch import nn

from methods.conformance.check import BrokenPromiseError, Check, DoesNotApplyError, check
from methods.conformance.comparing import identical, require_close, require_identical, share_not_finite
from methods.conformance.images import defect_region
from methods.conformance.subject import Subject
from methods.detector import Prediction


@check(
    "output",
    "Maps are finite float32 (B, h, w), no larger than the images, and scores finite float32 (B,).",
    "Look at what module() returns: squeeze the channel, cast with .float(), and find what divides by zero.",
)
def output(subject: Subject) -> None:
    """Look at shapes, data types and values of the trial's prediction."""
    trial = subject.trial
    count, (height, width) = len(subject.images), subject.size
    for name, values in vars(trial.prediction).items():
        if values.dtype != torch.float32:
            raise BrokenPromiseError(f"{name} are {str(values.dtype).removeprefix('torch.')}.")
        if not values.isfinite().all():
            raise BrokenPromiseError(f"{share_not_finite(values)} of the {name} are not finite.")
    maps, scores = trial.prediction.maps, trial.prediction.scores
    if maps.ndim != 3 or len(maps) != count or maps.shape[1] > height or maps.shape[2] > width:
        raise BrokenPromiseError(f"Maps of images {tuple(subject.images.shape)} have the shape {tuple(maps.shape)}.")
    if scores.shape != (count,):
        raise BrokenPromiseError(f"Scores of {count} images have the shape {tuple(scores.shape)}.")


@check(
    "non-square",
    "Maps of images that are not square are not square either, and stand as the images do.",
    "Keep height before width everywhere: in shapes, in input_size and when reshaping patches.",
)
def non_square(subject: Subject) -> None:
    """Compare the sides of maps and images."""
    maps = subject.trial.prediction.maps
    (height, width), (rows, columns) = subject.size, maps.shape[-2:]
    if height == width:
        raise DoesNotApplyError(f"its images are square ({height} x {width}); set an option that changes this, if any")
    # A coarse map has whole rows and columns only.
    if abs(rows / height - columns / width) > 1 / min(height, width) + 0.1 * rows / height:
        raise BrokenPromiseError(f"Images are {height} x {width}, their maps {rows} x {columns}.")


@check(
    "orientation",
    "A planted defect has higher scores than any normal image, and its place the higher values in the map.",
    "Higher is more anomalous: turn the sign if need be. If the place is wrong, look for a transposed map. "
    "A method that learns nothing in seconds declares an exception.",
)
def orientation(subject: Subject) -> None:
    """Predict normal images and images with a red patch."""
    detector = subject.trial.detector
    prediction = detector.predict(subject.unseen(3, 3))
    normal, anomalous = prediction.scores[:3], prediction.scores[3:]
    if not anomalous.min() > normal.max():
        raise BrokenPromiseError(
            f"Normal images score up to {float(normal.max()):.4g}, an anomalous one {float(anomalous.min()):.4g}."
        )
    maps = prediction.maps[3:]
    inside = torch.zeros_like(maps, dtype=torch.bool)
    inside[(..., *defect_region(*maps.shape[-2:]))] = True
    if not maps[inside].mean() > maps[~inside].mean():
        raise BrokenPromiseError(
            f"The maps' mean is {float(maps[inside].mean()):.4g} in the defect and {float(maps[~inside].mean()):.4g} "
            "elsewhere."
        )


@check(
    "batch-size",
    "What is predicted of an image does not depend on the images in its batch.",
    "Call eval() on networks with batch norms, and normalise by numbers of the fit, not of the batch.",
)
def batch_size(subject: Subject) -> None:
    """Predict the images one by one."""
    trial = subject.trial
    alone = [trial.detector.predict(image[None]) for image in subject.images]
    single = Prediction(torch.cat([one.maps for one in alone]), torch.cat([one.scores for one in alone]))
    require_close(single, trial.prediction, "Images alone and in a batch")


@check(
    "test-data",
    "Predicting teaches a detector nothing: images change neither later predictions nor its state.",
    "Keep no running statistics in forward(), and no memory of images; calibrate in fit().",
)
def test_data(subject: Subject) -> None:
    """Predict another image, and the same ones again."""
    trial = subject.trial
    module = trial.detector.module()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trial.detector.predict(255 - subject.images[1:])
    again = trial.detector.predict(subject.images)
    require_identical(again, trial.prediction, "The same images before and after another")
    changed = [name for name, value in module.state_dict().items() if not identical(value, before[name])]
    if changed:
        raise BrokenPromiseError(f"Predicting changed the state's {', '.join(changed)}.")


@check(
    "input",
    "Predicting leaves the images as they are.",
    "Normalise into a new tensor: no in-place operation (sub_, /=, clamp_) on what forward() is given.",
)
def input_images(subject: Subject) -> None:
    """Compare uint8 and floating images before and after."""
    for kind, overwritten in (("uint8", subject.trial.overwritten), ("floating", subject.floating.overwritten)):
        if overwritten:
            raise BrokenPromiseError(f"{overwritten:.0%} of the pixel values of {kind} images were overwritten.")


@check(
    "pixel-range",
    "Floating images 0-1 and uint8 images 0-255 mean the same.",
    "Divide by 255 if, and only if, images.dtype is torch.uint8.",
)
def pixel_range(subject: Subject) -> None:
    """Predict the same images in both forms."""
    expected = subject.trial.prediction
    require_close(subject.floating.prediction, expected, "Floating images 0-1 and uint8 images")


@check(
    "module",
    "module() is one nn.Module, the same at each call, and predict() says what it says.",
    "Build the module in fit() and restore(), and return it from module(); leave predict() to the base class if "
    "you can.",
)
def module(subject: Subject) -> None:
    """Call the module itself."""
    trial = subject.trial
    fitted = trial.detector.module()
    if not isinstance(fitted, nn.Module):
        raise BrokenPromiseError(f"module() is {fitted!r}, and no nn.Module.")
    if trial.detector.module() is not fitted:
        raise BrokenPromiseError("module() makes another module at each call: casting one would not cast the other.")
    require_close(subject.direct.prediction, trial.prediction, "module() and predict()")


@check(
    "no-gradient",
    "Nothing of training is left: no gradient, no parameter that wants one, no layer in training mode.",
    "End fit() with module.eval().requires_grad_(False) and parameter.grad = None.",
)
def no_gradient(subject: Subject) -> None:
    """Look at the module's parameters and layers, and at its output while gradients are computed."""
    fitted = subject.trial.detector.module()
    wanting = [name for name, value in fitted.named_parameters() if value.requires_grad or value.grad is not None]
    if wanting:
        raise BrokenPromiseError(f"{len(wanting)} parameters want or hold a gradient: {_some(wanting)}.")
    training = [name or "the module itself" for name, layer in fitted.named_modules() if layer.training]
    if training:
        raise BrokenPromiseError(f"{len(training)} layers are in training mode: {_some(training)}.")
    if any(values.requires_grad for values in vars(subject.direct.prediction).values()):
        raise BrokenPromiseError("The maps and scores that module() returns carry a graph of gradients.")


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


CHECKS: tuple[Check, ...] = (
    output,
    non_square,
    orientation,
    batch_size,
    test_data,
    input_images,
    pixel_range,
    module,
    no_gradient,
)
