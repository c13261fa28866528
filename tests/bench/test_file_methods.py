"""Detectors in files of the user's: run under the same protocol, known by their code, refused with a reason."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import Command

from methods.errors import MethodError
from methods.registry import load_method, method_names
from results.store import RunStore

TINY = Path(__file__).parent / "plugin" / "tiny_detectors.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a detector in ``mine.py``, of which a part is in the module beside it."""
    (tmp_path / "plugins").mkdir()
    text = TINY.read_text().replace('title = "Tiny"', "title = TITLE").replace("import torch\n", BESIDE, 1)
    (tmp_path / "plugins" / "mine.py").write_text(text)
    (tmp_path / "plugins" / "mine_words.py").write_text('"""Words."""\n\nTITLE = "Mine"\n')
    return tmp_path / "plugins"


BESIDE = "import torch\nfrom mine_words import TITLE\n"


def keys(bench: Command, data_root: Path) -> list[str]:
    done = bench(*arguments(data_root, "--dry-run", "--json"))
    assert done.returncode == 0, done.stderr
    return [cell["fit_key"] for cell in json.loads(done.stdout)["cells"]]


def arguments(data_root: Path, *more: object) -> list[str]:
    fixed = ("run", "--methods", "plugins/mine.py:Tiny,tiny", "--datasets", "parts", "--out", "out")
    return [*fixed, "--data-root", str(data_root), *map(str, more)]


@pytest.mark.slow
def test_a_detector_in_a_file_runs_beside_others(bench: Command, data_root: Path, folder: Path, tmp_path: Path) -> None:
    options = ("--workers", 2, "--set", "plugins/mine.py:Tiny.norm=squared", "--keep-models")
    done = bench(*arguments(data_root, *options))
    assert done.returncode == 0, done.stdout + done.stderr
    records = {(record.method, record.scenario): record for record in RunStore(tmp_path / "out").records()}
    assert len(records) == 4
    own = records["plugins/mine.py:Tiny", "bolt"]
    assert (own.title, own.status, own.deviations) == ("Mine", "ok", ["norm squared"])
    assert own.metrics["image_au_roc"] == records["tiny", "bolt"].metrics["image_au_roc"], "the same order of scores"
    again = bench("evaluate", "out", "--with-models", "--out", "again", "--data-root", data_root)
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.slow
def test_its_code_and_that_beside_it_make_the_key_and_docstrings_do_not(
    bench: Command, data_root: Path, folder: Path
) -> None:
    first = keys(bench, data_root)
    words = folder / "mine_words.py"
    words.write_text('"""Other words."""\n\nTITLE = "Mine"\n')
    assert keys(bench, data_root) == first
    words.write_text('TITLE = "Another"\n')
    changed = keys(bench, data_root)
    assert [before != after for before, after in zip(first, changed, strict=True)] == [True, False] * 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:Mine", "nowhere.py does not exist"),
        ("mine_.py:Tinny", "there is no 'Tinny' in mine_.py; did you mean 'Tiny'"),
        ("mine_.py:TinyConfig", "mine_.py:TinyConfig is not a subclass of methods.detector.Detector"),
        ("mine_.py:Detector", "mine_.py:Detector is not a subclass of methods.detector.Detector"),
        ("broken_.py:Mine", "broken_.py cannot be imported: line 2: NameError: name 'nothing' is not defined"),
        ("my-own.py:Mine", "'my-own' is no Python name; rename it"),
        ("json.py:Mine", "another module is called 'json'"),
        ("zipfile.py:Mine", "another module is called 'zipfile'"),
    ],
)
def test_what_cannot_be_loaded_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    shutil.copy(TINY, "mine_.py")
    Path("broken_.py").write_text("import torch\nnothing\n")
    for other in ("my-own.py", "json.py", "zipfile.py"):
        Path(other).write_text("class Mine: ...\n")
    with pytest.raises(MethodError) as error:
        load_method(name)
    assert message in str(error.value)


def test_two_files_of_one_name_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        shutil.copy(TINY, tmp_path / part / "twice_.py")
    assert load_method(f"{tmp_path}/a/twice_.py:Tiny") is load_method(f"{tmp_path}/a/twice_.py:Tiny")
    with pytest.raises(MethodError, match=r"twice_.py cannot be imported: another module(.|\n)*Rename the file"):
        load_method(f"{tmp_path}/b/twice_.py:Tiny")


def test_all_stands_for_every_method(bench: Command, data_root: Path) -> None:
    done = bench(
        *("run", "--methods", "all,tiny", "--datasets", "parts/bolt", "--data-root", data_root, "--dry-run", "--json")
    )
    named = [cell["method"] for cell in json.loads(done.stdout)["cells"]]
    assert named == [*method_names(), "tiny"]


@pytest.mark.slow
def test_a_new_method_works_as_it_is_written(bench: Command, data_root: Path, tmp_path: Path) -> None:
    done = bench("new-method", "my_method", "--out", "new")
    assert done.returncode == 0, done.stderr
    checked = bench("check-method", "new/my_method.py:MyMethod")
    assert checked.returncode == 0, checked.stdout
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "new"]
    tested = subprocess.run([*command, "new/test_my_method.py"], cwd=tmp_path, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout
    run = ("run", "--methods", "new/my_method.py:MyMethod", "--datasets", "parts/bolt", "--data-root", data_root)
    assert bench(*run, "--out", "out").returncode == 0
    refused = bench("new-method", "my_method", "--out", "new")
    assert refused.returncode == 2
    assert "new/my_method.py exists already" in refused.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My-Method", "'My-Method' cannot be the name of a method's file"),
        ("class", "'class' cannot be the name of a method's file"),
        ("numpy", "'numpy' is the name of an installed module"),
    ],
)
def test_a_name_that_python_would_not_take_is_refused(bench: Command, tmp_path: Path, name: str, message: str) -> None:
    done = bench("new-method", name)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []
