"""A small collection on disk, a detector of another package, and the real command line."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import REPOSITORY, Command, CommandServer, write_scenario

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
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a package is installed that offers the detector ``tiny`` by entry point."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("plugin")
    for name in ("pyproject.toml", "tiny_detectors.py"):
        shutil.copy(Path(__file__).parent / "plugin" / name, source)
    offline = ("--no-index", "--no-deps", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(folder), str(source)]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the collection ``parts`` of the scenarios ``bolt`` and ``nut``."""
    root = tmp_path_factory.mktemp("data")
    write_scenario(root / "parts/bolt", seed=1)
    write_scenario(root / "parts/nut", size=(64, 40), seed=2)
    return root


@pytest.fixture(scope="session")
def environment(plugin: Path) -> dict[str, str]:
    """Environment variables under which ``python -m bench`` finds our code and the plugin."""
    path = os.pathsep.join([str(REPOSITORY), str(plugin)])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "120", "PYTHONWARNINGS": "default"}


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
