"""``bench distill vq``: DSR's quantised autoencoder from a folder of photographs."""

from dataclasses import dataclass
from functools import partial

from bench.commands.distill.training import TrainingOptions, part_of, run_training
from methods.dsr.vq_training import VqConfig, train_vq_model


@dataclass(frozen=True, kw_only=True)
class VqOptions(TrainingOptions, VqConfig):
    """Everything that ``bench distill vq`` takes: options of the training, and from where to where."""


def vq(options: VqOptions) -> int:
    """Make the quantised autoencoder of DSR (section 3.1).

    An interrupted run continues.
    """
    train = partial(train_vq_model, part_of(options, VqConfig))
    return run_training(options, train, f"Use it with --set dsr.vq_model={options.out}")
