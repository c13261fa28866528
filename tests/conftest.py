"""What the tests of several rooms share."""

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests away from the user's cache, in subprocesses too."""
    os.environ["BENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
