"""``bench distill efficientad``: a teacher for EfficientAD from a folder of photographs."""

from dataclasses import dataclass
from functools import partial

from bench.commands.distill.training import TrainingOptions, part_of, run_training
from methods.efficientad.distillation import DistillationConfig, distill


@dataclass(frozen=True, kw_only=True)
class EfficientAdOptions(TrainingOptions, DistillationConfig):
    """Everything that ``bench distill efficientad`` takes: the options of Algorithm 3, and from where to where."""


def efficientad(options: EfficientAdOptions) -> int:
    """Make a teacher for EfficientAD (Algorithm 3).

    An interrupted run continues.
    """
    train = partial(distill, part_of(options, DistillationConfig), weights_dir=options.weights_dir)
    return run_training(options, train, f"Use it with --set efficientad_{options.size.lower()}.teacher={options.out}")
