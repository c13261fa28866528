"""``bench distill efficientad``: a teacher for EfficientAD from a folder of photographs."""

from dataclasses import dataclass, fields

import torch

from bench.commands.distill.training import TrainingOptions, run_training
from bench.datasets.photographs import PhotographFolder
from methods.common.photograph_training import StepProgress
from methods.efficientad.distillation import DistillationConfig, distill


@dataclass(frozen=True, kw_only=True)
class EfficientAdOptions(TrainingOptions, DistillationConfig):
    """Everything that ``bench distill efficientad`` takes: the options of Algorithm 3, and from where to where."""

    def config(self) -> DistillationConfig:
        """The options of Algorithm 3."""
        return DistillationConfig(**{option.name: getattr(self, option.name) for option in fields(DistillationConfig)})


def efficientad(options: EfficientAdOptions) -> int:
    """Make a teacher for EfficientAD (Algorithm 3).

    An interrupted run continues.
    """

    def train(photographs: PhotographFolder, device: torch.device, progress: StepProgress) -> object:
        return distill(
            options.config(),
            photographs,
            options.out,
            weights_dir=options.weights_dir,
            device=device,
            force_precision=options.force,
            progress=progress,
        )

    use = f"Use it with --set efficientad_{options.size.lower()}.teacher={options.out}"
    return run_training(options, train, use)
