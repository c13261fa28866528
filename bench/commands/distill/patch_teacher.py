"""``bench distill patch-teacher``: a teacher for S-T and GCAD from a folder of photographs."""

from dataclasses import dataclass, fields

import torch

from bench.commands.distill.training import TrainingOptions, run_training
from bench.datasets.photographs import PhotographFolder
from methods.common.patch_distillation import PatchTeacherConfig, distil_patch_teacher
from methods.common.photograph_training import StepProgress


@dataclass(frozen=True, kw_only=True)
class PatchTeacherOptions(TrainingOptions, PatchTeacherConfig):
    """Everything that ``bench distill patch-teacher`` takes: options of the distillation, and from where to where."""

    def config(self) -> PatchTeacherConfig:
        """The options of the distillation."""
        return PatchTeacherConfig(**{option.name: getattr(self, option.name) for option in fields(PatchTeacherConfig)})


def patch_teacher(options: PatchTeacherOptions) -> int:
    """Make a teacher of patches for S-T and GCAD (Bergmann et al., CVPR 2020).

    An interrupted run continues.
    """

    def train(photographs: PhotographFolder, device: torch.device, progress: StepProgress) -> object:
        return distil_patch_teacher(
            options.config(),
            photographs,
            options.out,
            weights_dir=options.weights_dir,
            device=device,
            force_precision=options.force,
            progress=progress,
        )

    use = (
        f"Use it with --set gcad.patch_size={options.patch_size} --set gcad.teacher={options.out},\n"
        f"or --set st.patch_sizes=[{options.patch_size}] --set 'st.teachers=[\"{options.out}\"]'"
    )
    return run_training(options, train, use)
