"""``bench run``: run methods on data sets and report."""

import dataclasses

from bench.commands.flags import INTERRUPTED, console
from bench.commands.plan import plan
from bench.errors import UsageError
from bench.options import RunOptions


def run(options: RunOptions) -> int:
    """Train, score and evaluate methods on data sets, then report. The same command again continues.

    Exit code: 0 all cells worked, 1 a bug, 2 the command makes no sense, 3 some cells failed, 130 interrupted.
    """
    if options.json and not options.dry_run:
        raise UsageError("--json is the form in which --dry-run prints: pass both\n  Records of a run are JSON anyway.")
    if options.dry_run:
        return plan(options)
    from bench.run import run as execute

    if not options.time:
        return execute(options, console())
    from bench.speed import time_run

    options = dataclasses.replace(options, keep_models=True)
    code = execute(options, console())
    return code if code == INTERRUPTED else max(code, time_run(options, console()))
