"""Runs the real command line in processes of its own that need not import torch anew, seconds each.

Each line on standard input is a JSON object: ``arguments`` of ``bench``, ``folder`` to run in, ``variables`` of the
environment, and ``output`` and ``errors``, files for what it prints. The answer is its exit code, on a line. Each
command is a fork of this process, which has loaded the libraries, and nothing else: it has run no command.
"""

import gc
import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer requests until there are no more."""
    import reports.report  # noqa: F401
    from bench.cli import main as command_line

    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if not process:
            _become(request)
            command_line()
            return
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])}\n")
        sys.stdout.flush()


def _become(request: dict[str, Any]) -> None:
    """Let this process look as one that a shell has started."""
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.argv = ["bench", *request["arguments"]]
    sys.path[0] = request["folder"]
    os.environ.clear()
    os.environ.update(request["variables"])
    os.chdir(request["folder"])


if __name__ == "__main__":
    main()
