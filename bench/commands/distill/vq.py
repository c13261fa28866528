"""``bench distill vq``: DSR's quantised autoencoder from a folder of photographs."""

from dataclasses import dataclass, fields

import torch

from bench.commands.distill.training import TrainingOptions, run_training
from bench.datasets.photographs import PhotographFolder
from methods.common.photograph_training import StepProgress
from methods.dsr.vq_training import VqConfig, train_vq_model


@dataclass(frozen=True, kw_only=True)
class VqOptions(TrainingOptions, VqConfig):
    """Everything that ``bench distill vq`` takes: options of the training, and from where to where."""

    def config(self) -> VqConfig:
        """The options of the training."""
        return VqConfig(**{option.name: getattr(self, option.name) for option in fields(VqConfig)})


def vq(options: VqOptions) -> int:
    """Make the quantised autoencoder of DSR (section 3.1).

    An interrupted run continues.
    """

    def train(photographs: PhotographFolder, device: torch.device, progress: StepProgress) -> object:
        return train_vq_model(
            options.config(),
            photographs,
            options.out,
            device=device,
            force_precision=options.force,
            progress=progress,
        )

    return run_training(options, train, f"Use it with --set dsr.vq_model={options.out}")
