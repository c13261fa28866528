"""From what a user gives to a command's options."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.options import EvaluationOptions, RunOptions, described, resolve


def run_options(config: Path | None = None, **given: object) -> RunOptions:
    return resolve(RunOptions, {"methods": "tiny", **given}, "bench run", config)


def test_text_becomes_values_and_what_is_not_given_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", "~/data")
    monkeypatch.setenv("BENCH_CACHE", "/caches")
    options = run_options(methods="a, b", seeds="1,2", workers="3", train_scale="0.5", out="~/out", preset="a,b")
    assert (options.methods, options.seeds, options.workers, options.train_scale) == (("a", "b"), (1, 2), 3, 0.5)
    assert options.out == Path.home() / "out"
    assert options.data_root == Path.home() / "data"
    assert options.weights_dir == Path("/caches/weights")
    assert (options.preset, options.precision, options.cache, options.keep_maps) == (("a", "b"), "fp32", True, False)


def test_values_of_their_own_type_are_taken_as_they_are() -> None:
    options = run_options(methods=["a"], seeds=4, set={"a": {"side": 16}}, datasets=["x", "y/z"], penalty_images="none")
    assert (options.methods, options.seeds, options.datasets) == (("a",), (4,), "x,y/z")
    assert options.set == {"a": {"side": 16}}
    assert options.penalty_images == "none"
    assert run_options(penalty_images="~/photographs").penalty_images == Path.home() / "photographs"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("seeds", "-1", "greater than or equal to 0"),
        ("seeds", "", "at least 1 item"),
        ("methods", ",", "at least 1 item"),
        ("train_scale", "inf", "finite"),
        ("workers", "0", "greater than or equal to 1"),
        ("precision", "fp8", "'fp32', 'bf16' or 'fp16'"),
        ("device", "cuda:x", "match pattern"),
        ("set", ["tiny"], "METHOD.FIELD=VALUE"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_its_flag(name: str, value: object, reason: str) -> None:
    with pytest.raises(UsageError, match="bench run --help") as error:
        run_options(**{name: value})
    assert f"--{name.replace('_', '-')} does not take {value!r}" in str(error.value)
    assert reason in str(error.value)


def test_what_is_missing_is_named_with_what_it_takes() -> None:
    with pytest.raises(UsageError, match=r"no methods named\n  Pass --methods. Methods, comma separated"):
        resolve(RunOptions, {"methods": None}, "bench run")


def test_flags_win_over_the_file_and_single_settings_are_merged(tmp_path: Path) -> None:
    config = tmp_path / "bench.toml"
    config.write_text(
        'seeds = [4, 5]\ntrain-scale = 0.5\nkeep_maps = true\nset.tiny.side = 16\nset.tiny.norm = "squared"\n'
    )
    options = run_options(config, seeds="7", keep_maps=False, set=["tiny.side=48", "other.x=1"])
    assert (options.seeds, options.train_scale, options.keep_maps) == ((7,), 0.5, False)
    assert options.set == {"tiny": {"side": "48", "norm": "squared"}, "other": {"x": "1"}}


def test_a_key_of_the_file_that_is_no_flag_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "bench.toml"
    config.write_text("keep-map = true\n")
    with pytest.raises(UsageError, match="did you mean 'keep-maps'"):
        run_options(config)


def test_options_of_an_evaluation() -> None:
    options = resolve(EvaluationOptions, {"maps": "~/maps", "definitions": "all"}, "bench evaluate")
    assert (options.maps, options.seed, options.definitions) == (Path.home() / "maps", 0, "all")
    with pytest.raises(UsageError, match="--definitions does not take 'none'"):
        resolve(EvaluationOptions, {"maps": ".", "definitions": "none"}, "bench evaluate")


@dataclass(frozen=True)
class Sized:
    """Options.

    Attributes:
        side: Height and
            width.
        norm: ``l1`` or ``l2``.
    """


@dataclass(frozen=True)
class Coloured(Sized):
    """More options.

    Attributes:
        norm: Always ``l2``.
        colour: Of it.
    """


def test_docstrings_describe_options() -> None:
    assert described(Sized) == {"side": "Height and width.", "norm": "l1 or l2."}
    assert described(Coloured) == {"side": "Height and width.", "norm": "Always l2.", "colour": "Of it."}


def test_a_configuration_may_begin_with_a_byte_order_mark(tmp_path):
    config = tmp_path / "bench.toml"
    config.write_bytes("seeds = [3]\n".encode("utf-8-sig"))
    assert resolve(RunOptions, {"methods": "patchcore"}, "bench run", config).seeds == (3,)
    config.write_bytes("seeds = [3]\n".encode("utf-16"))
    with pytest.raises(UsageError, match=r"bench\.toml is not UTF-8"):
        resolve(RunOptions, {"methods": "patchcore"}, "bench run", config)
