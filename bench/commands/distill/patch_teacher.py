"""``bench distill patch-teacher``: a teacher for S-T and GCAD from a folder of photographs."""

from dataclasses import dataclass
from functools import partial

from bench.commands.distill.training import TrainingOptions, part_of, run_training
from methods.common.patch_distillation import PatchTeacherConfig, distil_patch_teacher


@dataclass(frozen=True, kw_only=True)
class PatchTeacherOptions(TrainingOptions, PatchTeacherConfig):
    """Everything that ``bench distill patch-teacher`` takes: options of the distillation, and from where to where."""


def patch_teacher(options: PatchTeacherOptions) -> int:
    """Make a teacher of patches for S-T and GCAD (Bergmann et al., CVPR 2020).

    An interrupted run continues.
    """
    train = partial(distil_patch_teacher, part_of(options, PatchTeacherConfig), weights_dir=options.weights_dir)
    use = (
        f"Use it with --set gcad.patch_size={options.patch_size} --set gcad.teacher={options.out},\n"
        f"or --set st.patch_sizes=[{options.patch_size}] --set 'st.teachers=[\"{options.out}\"]'"
    )
    return run_training(options, train, use)
