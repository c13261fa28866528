"""``bench data``: published collections and those on disk: what there is, getting one, checking it, counting it."""

import typer

from bench.commands.data.check import check
from bench.commands.data.get import get
from bench.commands.data.listing import list_collections
from bench.commands.data.stats import stats
from bench.commands.flags import add_command

app = typer.Typer(
    name="data",
    help="Published collections and those on disk: list, get, check, count.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

add_command(app, list_collections, name="list", group="data")
add_command(app, get, group="data")
add_command(app, check, group="data")
add_command(app, stats, group="data")
