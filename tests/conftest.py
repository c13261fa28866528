"""What the tests of several rooms share."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from file_server import FileServer

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

SHARING = (
    "tests/bench/test_run.py",
    "tests/bench/test_submission.py",
    "tests/bench/test_evaluate_maps.py",
    "tests/bench/datasets/test_demo.py",
    "tests/methods/test_efficientad.py",
    "tests/reports/test_report.py",
)
"""Modules whose tests share what takes seconds to make."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Callable[..., None]) -> "LoadScopeScheduling":
    """Run tests that share something long to make in one process, and begin with them; hand out the others singly."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            if file == "tests/methods/test_conformance.py":  # the checks of a method look at one fit
                return test.partition("-")[0]
            return file if file in SHARING else nodeid

    return Scheduling(config, log)


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests away from the user's cache, in subprocesses too."""
    os.environ["BENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A web server of the test's own, reached without a proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
