"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import user_errors

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130

app = typer.Typer(
    name="bench",
    help="Compare visual anomaly detectors under one identical protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataRoot = Annotated[
    Path | None, typer.Option(help="Folder of the collections. Default: $BENCH_DATA, else ./data.", show_default=False)
]
WeightsDir = Annotated[Path | None, typer.Option(help="Where downloaded weights are kept.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. Default: auto.", show_default=False)]


def main() -> None:
    """Entry point of the command ``bench``: user errors are printed, anything else keeps its traceback."""
    try:
        app()
    except Exception as error:
        if not isinstance(error, user_errors()):
            raise
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"bench {version('anomaly-bench')}")
        except PackageNotFoundError:
            typer.echo("bench, not installed: run from its source folder")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def run(
    methods: Annotated[
        str | None, typer.Option(help="Methods, comma separated; bench methods lists them.", show_default=False)
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option(
            help="all, demo, COLLECTION or COLLECTION/SCENARIO, comma separated. Default: all.", show_default=False
        ),
    ] = None,
    data_root: DataRoot = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2. Default: 0.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; what is already done in it is kept. Default: the newest folder under runs/ with the "
            "same cells, else runs/<UTC time>.",
            show_default=False,
        ),
    ] = None,
    device: Device = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Worker processes; they share the CPU cores. Default: one per GPU, on the CPU one per 8 cores.",
            show_default=False,
        ),
    ] = None,
    train_scale: Annotated[
        float | None,
        typer.Option(help="Multiplies every training length; stamped on all results. Default: 1.", show_default=False),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="One option of a method, METHOD.FIELD=VALUE; repeatable.", show_default=False),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Named option set of the methods; embedded needs no download. Default: each paper's options, on the "
            "demo alone embedded.",
            show_default=False,
        ),
    ] = None,
    penalty_images: Annotated[
        str | None,
        typer.Option(
            help="Folder of photographs for EfficientAD's pretraining penalty, or none. Default: imagenet, else "
            "photographs under the data root, else none.",
            show_default=False,
        ),
    ] = None,
    weights_dir: WeightsDir = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with these flags' names as keys; flags win.", show_default=False),
    ] = None,
    cache: Annotated[
        bool | None,
        typer.Option("--cache/--no-cache", help="Keep decoded images on disk. Default: yes.", show_default=False),
    ] = None,
    keep_maps: Annotated[
        bool | None,
        typer.Option("--keep-maps/--no-keep-maps", help="Keep the anomaly maps. Default: no.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool | None,
        typer.Option(
            "--dry-run", help="Only print what would be run; fetches missing weights, whose digest names a cell."
        ),
    ] = None,
    retry_failed: Annotated[
        bool | None, typer.Option("--retry-failed", help="Run the cells again that failed before.")
    ] = None,
) -> None:
    """Train, score and evaluate methods on data sets, then report. The same command again continues.

    Exit code: 0 all cells worked, 1 a bug, 2 the command makes no sense, 3 some cells failed, 130 interrupted.
    """
    flags = dict(locals())
    flags["set"] = flags.pop("set_") or None
    del flags["config"]
    raise typer.Exit(_interruptible(lambda: _run(flags, config)))


@app.command()
def evaluate(
    maps: Annotated[
        Path,
        typer.Argument(
            metavar="MAPS",
            help="Folder with <scenario>/test/<defect>/<stem>.tiff (or .npy, .npz), or a run folder whose cells kept "
            "their maps.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(help="What tables call the method that made the maps; not for a run.", show_default=False),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Its paper or product.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Tells several trainings of one method apart.")] = 0,
    datasets: Annotated[
        str | None,
        typer.Option(help="COLLECTION or COLLECTION/SCENARIO, comma separated. Default: all that the maps are of."),
    ] = None,
    data_root: DataRoot = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/<UTC time>.", show_default=False)] = None,
    upsample: Annotated[
        bool, typer.Option("--upsample", help="The maps are of the whole image at the network's resolution.")
    ] = False,
    definitions: Annotated[
        str | None,
        typer.Option(help="all: also show what other definitions of AU-PRO make of the maps.", show_default=False),
    ] = None,
) -> None:
    """Evaluate anomaly maps that anything else computed, or those that a run kept; needs no GPU and no model.

    Exit code: 0 all scenarios worked, 2 the command makes no sense, 3 some maps could not be evaluated.
    """
    given = dict(locals())

    def command() -> int:
        from bench.errors import unknown_name
        from bench.evaluation import EvaluationOptions, evaluate_maps

        if definitions not in (None, "all"):
            raise unknown_name("choice of --definitions", str(definitions), ["all"])
        return evaluate_maps(EvaluationOptions(**{**given, "definitions": definitions == "all"}), _console())

    raise typer.Exit(_interruptible(command))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)],
    formats: Annotated[str, typer.Option("--format", help="md, tex, csv, comma separated.")] = "md,tex,csv",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to. Default: report in the run folder; of several runs, report here.",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="Instead write the tables of means into this Markdown file, between its two markers.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 3 if a file is missing or not up to date.")
    ] = False,
) -> None:
    """Write tables and figures from the records of some runs."""
    from bench.commands.report import report as write
    from bench.commands.report import report_into

    if into is not None:
        raise typer.Exit(report_into(into, runs, check, _console()))
    raise typer.Exit(write(runs, formats, out, check, _console()))


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show the options of this method.", show_default=False)] = None,
) -> None:
    """List the methods, or the options and presets of one."""
    from bench.commands.methods import list_methods, show_method

    if name is None:
        list_methods(_console())
    else:
        show_method(name, _console())


@app.command()
def datasets(data_root: DataRoot = None) -> None:
    """List the collections and scenarios under the data root."""
    from bench.commands.datasets import list_datasets

    list_datasets(data_root, _console())


@app.command()
def doctor(data_root: DataRoot = None, weights_dir: WeightsDir = None) -> None:
    """Say what is installed, which devices, weights and data are found, and what to do about what is missing."""
    from bench.commands.doctor import doctor as examine

    examine(data_root, weights_dir, _console())


@app.command()
def distill(
    photographs: Annotated[Path, typer.Option(help="Folder of images to distil on.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The teacher's file, .safetensors.", show_default=False)],
    size: Annotated[str | None, typer.Option(help="S or M.", show_default="S")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Whose features are distilled.", show_default="wide_resnet101_2")
    ] = None,
    backbone_weights: Annotated[str | None, typer.Option(help="auto, random or a path.", show_default="auto")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.", show_default="60000")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.", show_default="16")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam.", show_default="0.0001")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of Adam.", show_default="1e-05")] = None,
    schedule: Annotated[str | None, typer.Option(help="constant or cosine.", show_default="constant")] = None,
    normalisation_images: Annotated[
        int | None, typer.Option(help="Images for the features' mean and deviation.", show_default="10000")
    ] = None,
    grayscale_probability: Annotated[float | None, typer.Option(help="Of each image.", show_default="0.1")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.", show_default="fp32")] = None,
    cache_gib: Annotated[
        float | None, typer.Option(help="Memory for the backbone's features of repeated images.", show_default="7.0")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds every random choice.", show_default="0")] = None,
    device: Device = None,
    weights_dir: WeightsDir = None,
) -> None:
    """Make a teacher for EfficientAD from photographs (Algorithm 3); an interrupted run continues."""
    given = {name: value for name, value in locals().items() if value is not None}
    for name in ("photographs", "out", "device", "weights_dir"):
        given.pop(name, None)

    def command() -> int:
        from bench.commands.distill import distill_teacher

        return distill_teacher(photographs, out, given, device or "auto", weights_dir, _console())

    raise typer.Exit(_interruptible(command))


def _run(flags: dict[str, object], config: Path | None) -> int:
    from bench.options import resolve_options

    options = resolve_options(flags, config)
    from bench.run import run as execute

    return execute(options, _console())


def _interruptible(command: Callable[[], int]) -> int:
    try:
        return command()
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        return INTERRUPTED


def _console() -> "Console":
    from rich.console import Console

    return Console()


if __name__ == "__main__":
    main()
