"""What README and documentation say of files, commands, options, names and rules exists in the code."""

import ast
import importlib
import itertools
import json
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench.cli import app
from bench.protocol import PROTOCOL
from methods.config import make_config
from methods.registry import chosen_methods, load_method
from reports.block import BEGIN, END
from results.record import Record

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
GITHUB = sorted(REPOSITORY.glob(".github/**/*.yml"))
ROOMS = ("bench", "methods", "metrics", "results", "reports")
FOLDERS = (*ROOMS, "benchmarks", "docs", "tests")
ENTRY_POINTS = "bench.methods"
"""A group of entry points, not a module."""

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language; ``""`` for those without one, and those indented by four spaces."""
    text = page.read_text()
    fenced = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return fenced if language else [*fenced, *re.findall(r"(?:^ {4}\S.*\n)+", text, re.MULTILINE)]


def command_lines() -> list[tuple[str, list[str]]]:
    """Every line of a code block that calls ``bench``: the page and the words, comments left out."""
    lines = []
    for page in PAGES:
        for block in [*blocks(page, ""), *blocks(page, "(?:bash|sh|console)")]:
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if line.strip().startswith("bench ") else []
                if words:
                    lines.append((page.name, words[1:]))
        inline = re.findall(r"`bench ([^`…]+)`", page.read_text())
        lines += [(page.name, shlex.split(line)) for line in inline]
    return [(page, words) for page, words in lines if not words[0].isupper()]  # bench COMMAND --help


by_command = pytest.mark.parametrize(
    ("page", "words"), command_lines(), ids=lambda value: value if isinstance(value, str) else " ".join(value)[:60]
)


@cache
def flags_of(*command: str) -> frozenset[str]:
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 0, done.output
    return frozenset(re.findall(r"--[a-z0-9][a-z0-9-]*", done.output))


def exported(module: str, name: str) -> bool:
    """Whether a module has a name, or is a package with a module of it."""
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def section_of(page: str, heading: str) -> str:
    text = (REPOSITORY / page).read_text()
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@by_page
def test_python_blocks_compile_and_import_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(compile(block, str(page), "exec", ast.PyCF_ONLY_AST)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ROOMS:
                missing = [name.name for name in node.names if not exported(node.module, name.name)]
                assert not missing, f"{node.module} has no {missing}"


@by_page
def test_toml_and_json_blocks_can_be_read(page: Path) -> None:
    for block in blocks(page, "toml"):
        tomllib.loads(block)
    for block in blocks(page, "json"):
        json.loads(block)


@by_command
def test_commands_and_flags_exist(page: str, words: list[str]) -> None:
    command, known = (), typer.main.get_command(app)
    for word in words:
        if word.startswith("--") or not hasattr(known, "commands"):
            break
        assert word in known.commands
        command, known = (*command, word), known.commands[word]
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= flags_of(*command)


@by_command
def test_methods_and_their_options_exist(page: str, words: list[str]) -> None:
    if page == "add_a_detector.md":
        pytest.skip("the page is executed by a test of its own, with the method that it writes")
    for flag, value in itertools.pairwise(words):
        if flag == "--methods" and value.islower():
            for name in chosen_methods(value.split(",")):
                load_method(name)
        elif flag == "--set" and value.islower() and words[0] == "run":
            target, _, setting = value.partition("=")
            method, _, option = target.partition(".")
            make_config(load_method(method), None, {option: setting})


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for label, target in re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert file.is_relative_to(REPOSITORY), target
        if anchor:
            assert anchor in {slug(heading) for heading in re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)}
        named = re.fullmatch(r"`([A-Za-z_]\w*)`", label)
        if named and file.suffix == ".py":
            assert re.search(rf"\b(def|class) {named[1]}\b|^{named[1]}\b", file.read_text(), re.MULTILINE), label


@by_page
def test_files_named_in_the_text_exist(page: Path) -> None:
    for path in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./]+)`", page.read_text()):
        assert (REPOSITORY / path).exists(), path


@by_page
def test_targets_of_make_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= set(targets)


@by_page
def test_dotted_names_exist(page: Path) -> None:
    for dotted in re.findall(rf"`((?:{'|'.join(ROOMS)})(?:\.[A-Za-z_]\w*)+)[`(]", page.read_text()):
        module, _, name = dotted.rpartition(".")
        assert dotted == ENTRY_POINTS or exported(module, name), dotted


@pytest.mark.parametrize(
    "file",
    [*PAGES, *GITHUB, *(REPOSITORY / name for name in ("Makefile", "CITATION.cff", ".ci/run", "pyproject.toml"))],
    ids=lambda file: file.name,
)
def test_nothing_depends_on_a_machine(file: Path) -> None:
    assert not re.search(r"(?<![\w.~])/(home|root|Users|tmp|work|opt|mnt|srv|data)/", file.read_text())


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("constraints*.txt")), ids=lambda file: file.name)
def test_constraints_name_versions_and_no_hosts(file: Path) -> None:
    for line in file.read_text().splitlines():
        assert re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line), line


def test_lower_bounds_are_those_that_are_tested() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    lowest = [line for line in (REPOSITORY / "constraints-lowest.txt").read_text().splitlines() if line[0] != "#"]
    tested = {line.replace("==", ">=") for line in lowest}
    assert set(needed) <= tested
    assert tested <= {*needed, *project["optional-dependencies"]["dev"]}


def test_the_table_of_rules_is_the_protocol() -> None:
    rules = PROTOCOL.as_record()
    section = section_of("docs/protocol.md", "The rules")
    rows = re.findall(r"^\| ([a-z_]+) \| (.*) \|$", section, re.MULTILINE)
    shown = [(name, ", ".join(map(str, rule)) if isinstance(rule, list) else str(rule)) for name, rule in rules.items()]
    assert rows[1:] == shown
    explained = ", ".join(re.findall(r"^\*\*([a-z_, ]+)\.\*\*", section, re.MULTILINE)).split(", ")
    assert sorted(explained) == sorted(rules)


def test_the_page_names_every_field_of_a_record() -> None:
    section = section_of("docs/protocol.md", "What a record holds")
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| [a-z ]+ \| (.*) \|$", section, re.MULTILINE)))
    assert sorted(named) == sorted(Record.model_fields)


def test_the_readme_has_a_place_for_results() -> None:
    assert re.search(f"{re.escape(BEGIN)}.*{re.escape(END)}", README.read_text(), re.DOTALL)


def test_every_page_is_in_the_index() -> None:
    index = (REPOSITORY / "docs/README.md").read_text()
    pages = {page.name for page in REPOSITORY.glob("docs/*.md")} - {"README.md"}
    assert pages <= set(re.findall(r"\]\(([\w.]+)\)", index))
