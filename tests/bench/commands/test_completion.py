"""What a shell completes: the real protocol between bash and the command line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import REPOSITORY, Command

from methods.registry import BUILT_IN

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(bench: Command, data_root: Path) -> Complete:
    """Ask as bash does when Tab is pressed after the last word."""

    def ask(*words: str) -> list[str]:
        done = bench(
            BENCH_DATA=str(data_root),
            _BENCH_COMPLETE="complete_bash",
            COMP_WORDS=" ".join(["bench", *words]),
            COMP_CWORD=str(len(words)),
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return ask


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "--methods", "tin"), ["tiny"]),
        (("run", "--methods", "patchcore,ti"), ["patchcore,tiny"]),
        (("run", "--methods", "tiny,ti"), []),
        (("methods", "patch"), ["patchcore", "patchcore_ens"]),
        (("run", "--datasets", "pa"), ["parts"]),
        (("run", "--datasets", "demo,parts/"), ["demo,parts/bolt", "demo,parts/nut"]),
        (("run", "--datasets", "nowhere/"), []),
        (("evaluate", "maps", "--datasets", "demo/co"), ["demo/coins"]),
        (("distill", "efficientad", "--normal"), ["--normalisation-images"]),
    ],
)
def test_names_are_completed(complete: Complete, words: tuple[str, ...], expected: list[str]) -> None:
    assert complete(*words) == expected


@pytest.mark.slow
def test_all_names_are_offered_before_any_is_begun(complete: Complete) -> None:
    assert {"tiny", *BUILT_IN} <= {*complete("run", "--methods", "")}
    assert complete("run", "--datasets", "") == ["all", "demo", "parts"]


@pytest.mark.slow
def test_scenarios_are_those_under_the_data_root_given(complete: Complete, data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").symlink_to(data_root)
    assert complete("run", "--data-root", "theirs", "--datasets", "par") == ["parts"]
    assert complete("run", "--data-root", "elsewhere", "--datasets", "par") == []


def test_a_shell_can_install_it() -> None:
    """The script that installation writes; installing itself would change the user's shell."""
    code = "import sys; sys.argv = ['bench', '--show-completion', 'bash']; from bench.cli import main; main()"
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert "_BENCH_COMPLETE=complete_bash" in done.stdout
