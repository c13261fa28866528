"""``bench weights``: which pretrained weights there are; fetching, checking, and bringing them from elsewhere."""

import typer

from bench.commands.flags import add_command
from bench.commands.weights.fetch import fetch
from bench.commands.weights.importing import import_files
from bench.commands.weights.listing import list_weights
from bench.commands.weights.verify import verify

app = typer.Typer(
    name="weights",
    help="Pretrained weights: list, fetch, verify, import those fetched elsewhere.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

add_command(app, list_weights, name="list", group="weights")
add_command(app, fetch, group="weights")
add_command(app, verify, group="weights")
add_command(app, import_files, name="import", group="weights")
