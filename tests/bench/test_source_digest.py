"""What code counts, on packages written for it."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

import bench
from bench.source_digest import forget, reached, source_digest

METHOD = '''"""A method."""

import math
from typing import TYPE_CHECKING

import numpy as np

from their_package.common import distance

if TYPE_CHECKING:
    from their_package.plots import Plot

RATE = 1
"""How fast."""


class Method:
    """Detects."""

    def fit(self) -> "Plot":
        """Fit."""
        from their_package.search import find

        return find(distance(RATE), math.pi, np.pi)
'''
FILES = {
    "__init__.py": "",
    "method.py": METHOD,
    "common/__init__.py": "from their_package.common.distances import distance\nfrom .other import x\n",
    "common/distances.py": "def distance(rate):\n    return rate\n",
    "common/other.py": "x = 1\n",
    "search.py": "def find(*things):\n    return things\n",
    "plots.py": "class Plot:\n    pass\n",
}

Digest = Callable[[dict[str, str]], str]


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Digest]:
    """Write the package, some files otherwise, and digest what its class leads to."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(changes: dict[str, str]) -> str:
        for name, text in {**FILES, **changes}.items():
            (tmp_path / "their_package" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "their_package" / name).write_text(text)
        for name in [name for name in sys.modules if name.startswith("their_package")]:
            del sys.modules[name]
        forget()
        method = type("Method", (), {"__module__": "their_package.method"})
        return source_digest(method)

    yield write
    forget()


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ('"""Detects."""', '"""Finds what is odd.\n\n    In two lines."""'),
        ('    """Detects."""\n\n', ""),
        ('        """Fit."""\n', ""),
        ('"""How fast."""', '"""How slow."""'),
        ("RATE = 1", "RATE = 1  # why so fast?\n\n"),
        ("RATE = 1", "RATE = (\n    1\n)"),
        (
            "import math\nfrom typing import TYPE_CHECKING\n\nimport numpy as np\n",
            "import numpy as np\nfrom typing import TYPE_CHECKING\nimport math\n",
        ),
        ("import distance\n", "import (\n    distance,\n)\n"),
        ("from their_package.common import distance", "from their_package.common.distances import distance"),
        ("from their_package.common import distance", "from .common import distance"),
        ("their_package.plots import Plot", "their_package.drawings import Plot"),
    ],
)
def test_what_computes_nothing_counts_for_nothing(digest: Digest, line: str, instead: str) -> None:
    text = METHOD.replace(line, instead)
    assert text != METHOD
    assert digest({}) == digest({"method.py": text})


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("method.py", METHOD.replace("RATE = 1", "RATE = 2"), True),
        ("method.py", METHOD.replace("math.pi", "math.e"), True),
        ("method.py", METHOD.replace("numpy as np", "math as np"), True),
        ("common/distances.py", "def distance(rate):\n    return 2 * rate\n", True),
        ("common/other.py", "x = 2\n", False),
        ("common/__init__.py", FILES["common/__init__.py"] + "y = 1\n", False),
        ("search.py", "def find(*things):\n    return things[:1]\n", True),
        ("plots.py", "class Plot:\n    size = 1\n", False),
    ],
)
def test_what_an_import_leads_to_counts(digest: Digest, name: str, text: str, counts: bool) -> None:
    assert (digest({}) != digest({name: text})) is counts


def test_another_definition_behind_the_same_name_counts(digest: Digest) -> None:
    passed_on = "from their_package.common.distances import {0} as distance\n"
    both = {"common/distances.py": "def near(rate):\n    return rate\n\n\ndef far(rate):\n    return -rate\n"}
    first, second = (digest({"common/__init__.py": passed_on.format(name), **both}) for name in ("near", "far"))
    assert first != second


RUNNER = '''"""Some of the runner."""

from bench.errors import DataError
from bench.made_up_helper import halve

LIMIT = 4
SHOWN = 80


def score(value):
    """Score."""
    return min(_double(value), LIMIT)


def _double(value):
    if value < 0:
        raise DataError("below zero")
    return halve(4 * value)


def show(value):
    return str(value)[:SHOWN]
'''
HELPER = "def halve(value):\n    return value / 2\n\n\ndef third(value):\n    return value / 3\n"


@pytest.fixture
def runner_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """Write a module of the runner and one that it imports, and digest what its function ``score`` leads to."""
    monkeypatch.setattr(bench, "__path__", [*bench.__path__, str(tmp_path)])

    def write(text: str, helper: str) -> str:
        (tmp_path / "made_up.py").write_text(text)
        (tmp_path / "made_up_helper.py").write_text(helper)
        forget()
        for name in ("bench.made_up", "bench.made_up_helper"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        return source_digest(import_module("bench.made_up").score)

    yield write
    forget()


@pytest.mark.parametrize(
    ("line", "instead", "counts"),
    [
        ("LIMIT = 4", "LIMIT = 5", True),
        ("4 * value", "5 * value", True),
        ("value / 2", "value / 4", True),
        ("SHOWN = 80", "SHOWN = 90", False),
        ("str(value)", "repr(value)", False),
        ("value / 3", "value / 9", False),
    ],
)
def test_of_the_runner_counts_what_is_reached(
    runner_digest: Callable[[str, str], str], line: str, instead: str, counts: bool
) -> None:
    before = runner_digest(RUNNER, HELPER)
    assert (before != runner_digest(RUNNER.replace(line, instead), HELPER.replace(line, instead))) is counts


def test_what_only_says_something_is_not_followed(runner_digest: Callable[[str, str], str]) -> None:
    runner_digest(RUNNER, HELPER)
    places = reached(import_module("bench.made_up").score)
    assert set(places) == {
        "bench.made_up:score",
        "bench.made_up:_double",
        "bench.made_up:LIMIT",
        "bench.made_up_helper:halve",
    }
