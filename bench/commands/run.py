"""``bench run``: run methods on data sets and report."""

from bench.commands.flags import console
from bench.errors import UsageError
from bench.options import RunOptions


def run(options: RunOptions) -> int:
    """Train, score and evaluate methods on data sets, then report. The same command again continues.

    Exit code: 0 all cells worked, 1 a bug, 2 the command makes no sense, 3 some cells failed, 130 interrupted.
    """
    from bench.run import run as execute

    if options.json and not options.dry_run:
        raise UsageError("--json is the form in which --dry-run prints: pass both\n  Records of a run are JSON anyway.")
    return execute(options, console())
