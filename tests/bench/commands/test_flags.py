"""Commands made of a model of their options, through the real parser."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from bench.commands.flags import add_command
from bench.errors import UsageError
from bench.option_types import Flag, Folder, Limits, Parsed

Invoke = Callable[..., Any]


@dataclass(frozen=True)
class PaintOptions:
    """Everything that painting takes.

    Attributes:
        places: Where to paint.
        coats: How many coats.
        colour: Of which colour.
        thinner: Parts of thinner per part of paint.
        frame: Paint the frame too.
        dry: Only say what would be painted.
        ladder: What to stand on.
        walls: By number.
        not_: What to leave out; repeatable.
    """

    places: Annotated[list[Folder], Flag(argument="PLACE...")]
    coats: Annotated[int, Limits(ge=1)]
    colour: Literal["red", "green"] = "red"
    thinner: float = 0.25
    frame: Annotated[bool, Flag(negatable=True)] = True
    dry: bool = False
    ladder: Annotated[Folder | None, Flag(default="whatever stands about")] = None
    walls: Annotated[tuple[int, ...], Parsed(lambda value: value.split("+") if isinstance(value, str) else value)] = (
        1,
        2,
    )
    not_: list[str] = field(default_factory=list)


@pytest.fixture
def painted() -> list[PaintOptions]:
    """With what options the command was called."""
    return []


@pytest.fixture
def invoke(painted: list[PaintOptions]) -> Invoke:
    def paint(options: PaintOptions) -> int:
        """Paint some places.

        Exit code: how many.
        """
        painted.append(options)
        return len(options.places)

    def rest(options: PaintOptions) -> int:
        """Begin, and be interrupted."""
        raise KeyboardInterrupt

    app = typer.Typer()
    add_command(app, paint)
    add_command(app, rest)
    add_command(app, paint, name="paint-as-said", config_file=True)
    return lambda *arguments: CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)


def test_flags_become_options_and_the_result_the_exit_code(invoke: Invoke, painted: list[PaintOptions]) -> None:
    done = invoke("paint", "a", "~/b", "--coats", "2", "--no-frame", "--dry", "--walls", "3+4", "--colour", "green")
    assert done.exit_code == 2, done.output
    places = [Path("a"), Path.home() / "b"]
    assert painted == [PaintOptions(places, 2, "green", 0.25, frame=False, dry=True, ladder=None, walls=(3, 4))]


def test_a_list_takes_its_flag_several_times(invoke: Invoke, painted: list[PaintOptions]) -> None:
    invoke("paint", "a", "--coats", "1", "--not", "doors", "--not", "windows")
    assert painted[0].not_ == ["doors", "windows"]


def test_what_is_not_given_has_the_model_s_default(invoke: Invoke, painted: list[PaintOptions]) -> None:
    assert invoke("paint", "a", "--coats", "1").exit_code == 1
    assert painted == [PaintOptions([Path("a")], 1)]


def test_help_says_of_each_option_what_the_model_does(invoke: Invoke) -> None:
    output = invoke("paint", "--help").output
    for flag, text in {
        "PLACE...": "Where to paint.",
        "--coats": "How many coats.",
        "--colour": "Of which colour. Default: red.",
        "--thinner": "Parts of thinner per part of paint. Default: 0.25.",
        "--no-frame": "Paint the frame too. Default: yes.",
        "--dry": "Only say what would be painted.",
        "--ladder": "What to stand on. Default: whatever stands about.",
        "--walls": "By number. Default: 1,2.",
        "--not ": "What to leave out; repeatable.",
    }.items():
        assert any(flag in line and text in line for line in output.splitlines()), flag
    assert "--no-dry" not in output
    assert "red|green" in output
    assert "Exit code: how many." in output


def test_what_has_no_default_is_asked_for(invoke: Invoke, painted: list[PaintOptions]) -> None:
    assert invoke("paint", "a").exit_code == 2
    assert "--coats" in invoke("paint", "a").output
    assert invoke("paint", "--coats", "2").exit_code == 2
    assert not painted


def test_a_configuration_file_may_give_what_flags_do_not(
    invoke: Invoke, painted: list[PaintOptions], tmp_path: Path
) -> None:
    config = tmp_path / "paint.toml"
    config.write_text('coats = 3\nplaces = ["a"]\ncolour = "green"\nnot = ["doors"]\n')
    done = invoke("paint-as-said", "--config", str(config), "--colour", "red")
    assert done.exit_code == 1, done.output
    assert painted == [PaintOptions([Path("a")], 3, not_=["doors"])]


def test_a_value_is_checked_by_the_model(invoke: Invoke, painted: list[PaintOptions]) -> None:
    done = invoke("paint", "a", "--coats", "0")
    assert isinstance(done.exception, UsageError)
    assert "--coats does not take '0': Input should be greater than or equal to 1" in str(done.exception)
    assert "paint --help" in str(done.exception)
    assert not painted


def test_an_interrupted_command_says_so(invoke: Invoke) -> None:
    done = invoke("rest", "a", "--coats", "1")
    assert done.exit_code == 130
    assert "interrupted" in done.output
