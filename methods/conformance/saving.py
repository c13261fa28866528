"""What becomes of a fitted detector: a file, half precision, an exported program."""

import copy
import warnings

import torch
from safetensors.torch import load_file, save_file

from methods.common.precision import Precision, set_precision
from methods.conformance.check import BrokenPromiseError, Check, DoesNotApplyError, check
from methods.conformance.comparing import require_close, require_identical, share_not_finite
from methods.conformance.emulation import HalfProducts
from methods.conformance.subject import Subject
from methods.conformance.watch import empty_cache
from methods.detector import Prediction
from methods.errors import MethodError


@check(
    "save-restore",
    "restore() makes the same detector of the saved state: the same maps, bit for bit.",
    "Register what inference needs as parameters or buffers; in restore() build the module as fit() does, without "
    "pretrained weights, and load the state strictly.",
)
def save_restore(subject: Subject) -> None:
    """Write the state to a safetensors file, and restore a detector from it."""
    trial = subject.trial
    path = subject.scratch / "model.safetensors"
    save_file({name: value.contiguous().clone() for name, value in trial.detector.module().state_dict().items()}, path)
    state = load_file(path)
    with empty_cache(subject.scratch):
        restored = subject.method.restore(subject.config, state)
    unknown = set(restored.module().state_dict()) ^ set(state)
    if unknown:
        raise BrokenPromiseError(f"The states saved and restored do not both hold {', '.join(sorted(unknown))}.")
    require_identical(restored.predict(subject.images), trial.prediction, "Before and after saving")


@check(
    "wrong-state",
    "restore() refuses a state that lacks something, or holds something unknown, with a MethodError.",
    "Load the state with methods.weights.states.load_fitted.",
)
def wrong_state(subject: Subject) -> None:
    """Restore from states with one tensor less, and one more."""
    state = subject.trial.detector.module().state_dict()
    if not state:
        raise BrokenPromiseError("The state is empty: nothing of the fit would be saved.")
    first = next(iter(state))
    wrong = {
        f"lacks {first}": {name: value for name, value in state.items() if name != first},
        "holds no_such_tensor": {**state, "no_such_tensor": torch.zeros(1)},
    }
    for what, tensors in wrong.items():
        try:
            subject.method.restore(subject.config, tensors)
        except MethodError:
            continue
        except Exception as error:
            raise BrokenPromiseError(f"A state that {what} raises {type(error).__name__}: {error}") from error
        raise BrokenPromiseError(f"A state that {what} is accepted.")


@check(
    "unfitted",
    "module() before fit() is a RuntimeError that says so.",
    "Keep the module in an attribute that is None until fit(), and look at it in module().",
)
def unfitted(subject: Subject) -> None:
    """Ask a new detector for its module."""
    detector = subject.method(subject.config)
    try:
        module = detector.module()
    except RuntimeError:
        return
    except Exception as error:
        raise BrokenPromiseError(f"It raises {type(error).__name__}: {error}") from error
    raise BrokenPromiseError(f"It returns {type(module).__name__}.")


@check(
    "bf16",
    "Its networks run in bf16, and maps and scores stay finite float32.",
    "Run networks with methods.common.precision.run_network, and name in module.networks only what is run so.",
)
def bf16(subject: Subject) -> None:
    """Predict in bf16."""
    _predict_in(subject, "bf16")


@check(
    "fp16",
    "Its networks run in fp16, whose largest number is 65504, and maps and scores stay finite float32.",
    "Run networks with methods.common.precision.run_network; square, sum and exponentiate what they return, in "
    "float32, and not inside of them.",
)
def fp16(subject: Subject) -> None:
    """Predict in fp16."""
    _predict_in(subject, "fp16")


def _predict_in(subject: Subject, precision: Precision) -> None:
    """Cast the networks of a copy, and predict."""
    trial = subject.trial
    module = copy.deepcopy(trial.detector.module())
    if not getattr(module, "networks", ()):
        raise DoesNotApplyError("its module names no networks: it runs in float32 only")
    set_precision(module, precision)
    with torch.no_grad(), HalfProducts():
        outputs = module(subject.unseen(0, 1))
    for name, values in zip(("maps", "scores"), outputs, strict=True):
        if values.dtype != torch.float32:
            raise BrokenPromiseError(f"In {precision} the {name} are {str(values.dtype).removeprefix('torch.')}.")
        if not values.isfinite().all():
            raise BrokenPromiseError(f"In {precision} {share_not_finite(values)} of the {name} are not finite.")


@check(
    "export",
    "torch.export makes a program of the module for images of one shape, and it says what the module says.",
    "Let forward() branch on shapes and data types only, never on the values of a tensor (.item(), if maps.max() > …).",
)
def export(subject: Subject) -> None:
    """Export the module, and run the program."""
    trial = subject.trial
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        program = torch.export.export(trial.detector.module(), (subject.images,), strict=False)
        maps, scores = program.module()(subject.images)
    require_close(Prediction(maps, scores), trial.prediction, "Exported and not")


CHECKS: tuple[Check, ...] = (unfitted, save_restore, wrong_state, bf16, fp16, export)
