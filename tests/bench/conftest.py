"""A small collection on disk, a detector of another package, and the real command line."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Command, CommandServer
from shared_fixtures import data_root, environment, plugin

__all__ = ["data_root", "environment", "plugin"]

NOBODY = 65534
"""The user to whom nothing belongs."""


@pytest.fixture
def users_folder() -> Iterator[Path]:
    """An empty folder of somebody whom permissions bind, and who is us for the time of the test: root may do all."""
    if not hasattr(os, "geteuid"):
        pytest.skip("permissions are not those of POSIX")
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            subprocess.run(["chmod", "-R", "u+rwX", name], check=True)
            return
        os.chown(name, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


@pytest.fixture(scope="session")
def command_line(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    """The real command line, each time in a process of its own."""
    server = CommandServer(environment, tmp_path_factory.mktemp("printed"))
    yield server
    server.close()


@pytest.fixture
def bench(command_line: CommandServer, tmp_path: Path) -> Command:
    """The real command line in an empty folder."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return command_line(*arguments, folder=tmp_path, **variables)

    return run
