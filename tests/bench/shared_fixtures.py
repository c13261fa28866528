"""A small collection on disk and a detector of another package, for the tests of the runner and of clusters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import REPOSITORY, write_scenario


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
