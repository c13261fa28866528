"""The command line: assembles the commands. Nothing heavy is imported before a command needs it."""

import sys
from typing import Annotated

import typer

from bench.commands.compare import compare
from bench.commands.data import app as data
from bench.commands.datasets import datasets
from bench.commands.distill import app as distill
from bench.commands.doctor import doctor
from bench.commands.evaluate import evaluate
from bench.commands.export import export
from bench.commands.flags import add_command, add_late_command
from bench.commands.methods import methods
from bench.commands.new_method import new_method
from bench.commands.plan import plan
from bench.commands.report import report
from bench.commands.run import run
from bench.commands.status import status
from bench.commands.submit import submit
from bench.commands.time import time
from bench.commands.weights import app as weights
from bench.errors import user_errors

app = typer.Typer(
    name="bench",
    help="Compare visual anomaly detectors under one identical protocol.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


add_command(app, run, config_file=True)
add_command(app, plan, config_file=True)
add_command(app, status)
add_command(app, evaluate)
add_command(app, time)
add_command(app, export)
add_command(app, report)
add_command(app, compare)
add_command(app, submit)
add_command(app, methods)
add_command(app, new_method, name="new-method")
add_command(app, datasets)
app.add_typer(data)
app.add_typer(weights)
add_command(app, doctor)
add_late_command(
    app,
    "check-method",
    "bench.commands.check_method",
    "Check whether a detector keeps every promise of the contract, and explain each that it breaks.",
)
app.add_typer(distill)


if __name__ == "__main__":
    main()
