"""``bench distill``: networks that detectors start from, trained on a folder of photographs."""

import typer

from bench.commands.flags import add_late_command

app = typer.Typer(
    name="distill",
    help="Train what detectors start from on a folder of photographs; an interrupted run continues.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

add_late_command(
    app,
    "efficientad",
    "bench.commands.distill.efficientad",
    "Make a teacher for EfficientAD (Algorithm 3).",
    group="distill",
)
add_late_command(
    app,
    "patch-teacher",
    "bench.commands.distill.patch_teacher",
    "Make a teacher of patches for S-T and GCAD (Bergmann et al., CVPR 2020).",
    group="distill",
)
add_late_command(
    app,
    "vq",
    "bench.commands.distill.vq",
    "Make the quantised autoencoder of DSR (Zavrtanik et al., ECCV 2022).",
    group="distill",
)
