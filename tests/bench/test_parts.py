"""Small parts of the runner, by themselves."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from bench.cell import split, thin, training_images
from bench.commands.methods import described
from bench.datasets.cache import Cache
from bench.datasets.scenario import Scenario
from bench.execution.local import failure_of, log_tail
from bench.machine.devices import choose_slots, usable_cores
from bench.progress import Pace, duration
from bench.protocol import PROTOCOL, Protocol
from bench.source_digest import code_version
from methods.detector import Progress
from methods.errors import WeightsError
from methods.patchcore import PatchCore, PatchCoreConfig
from results.record import Collection


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (9, 1), (25, 2), (209, 21)])
def test_a_tenth_is_held_out_and_never_everything(count: int, held_out: int) -> None:
    train, validation = split(count, 0.1, seed=3)
    assert len(validation) == held_out
    assert sorted(train + validation) == list(range(count))
    assert split(count, 0.1, seed=3) == (train, validation)


def test_another_seed_holds_out_others() -> None:
    assert split(100, 0.1, seed=0) != split(100, 0.1, seed=1)


def test_losses_are_thinned_evenly_and_finite() -> None:
    losses = [(step, float(step)) for step in range(1, 1001)]
    thinned = thin([*losses, (1001, float("nan"))])
    assert len(thinned) == 200
    assert (thinned[0], thinned[-1]) == (losses[0], losses[-1])
    assert thin(losses[:5]) == losses[:5]


def test_a_rule_changes_the_hash() -> None:
    assert Protocol().hash == PROTOCOL.hash
    assert Protocol(validation_fraction=0.2).hash != PROTOCOL.hash


def test_workers_share_the_cores() -> None:
    slots = choose_slots("cpu", 2)
    assert [slot.device for slot in slots] == ["cpu", "cpu"]
    assert all(slot.threads == max(1, usable_cores() // 2) for slot in slots)


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 75, 3600 * 26 + 5)] == ["0:00", "1:15", "26:00:05"]


def test_pace_counts_from_the_first_step_of_a_stage() -> None:
    now = 100.0
    pace = Pace(clock=lambda: now)
    cell = type("Cell", (), {"key": "k"})()
    assert pace.describe(cell, Progress("fit", 0, 1)) == ("", "", "")
    assert pace.describe(cell, Progress("train", 1000, 2000)) == ("1,000/2,000", "", "")
    now = 110.0
    assert pace.describe(cell, Progress("train", 1200, 2000)) == ("1,200/2,000", "20/s", "0:40")
    assert pace.describe(cell, Progress("maps", 8, 80)) == ("8/80", "", "")
    now = 130.0
    assert pace.describe(cell, Progress("maps", 16, 80)) == ("16/80", "2.5 s each", "2:40")


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (MemoryError(), "memory", "out of memory: no message"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory", "out of memory: Default"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "memory", "out of memory: CUDA"),
        (WeightsError("no file\n  get it"), "error", "no file"),
        (KeyError("x"), "bug", "KeyError: 'x'"),
    ],
)
def test_kinds_of_failures(error: Exception, kind: str, reason: str) -> None:
    failure = failure_of(error)
    assert failure.kind == kind
    assert failure.reason.startswith(reason)


def test_a_log_tail_begins_where_the_cell_did(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of another cell\n" + "".join(f"line {index}\n" for index in range(100)))
    assert log_tail(log, 0).splitlines() == [f"line {index}" for index in range(60, 100)]
    assert log_tail(log, log.stat().st_size - 8) == "line 99"
    assert log_tail(tmp_path / "missing", 0) == ""


def test_the_code_version_sees_code_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("RATE = 1\n")
    versions = []
    for body in ("", "  # a comment", "\n\n", " + 1"):
        (package / "method.py").write_text(f"def fit():\n    from . import helper\n    return helper.RATE{body}\n")
        versions.append(_version(monkeypatch, tmp_path))
    (package / "helper.py").write_text("RATE = 2\n")
    versions.append(_version(monkeypatch, tmp_path))
    assert versions[0] == versions[1] == versions[2]
    assert len(set(versions)) == 3


def _version(monkeypatch: pytest.MonkeyPatch, path: Path) -> str:
    from bench import source_digest as module

    module._read.cache_clear()
    with monkeypatch.context() as context:
        context.syspath_prepend(str(path))
        for name in [name for name in sys.modules if name.startswith("their_package")]:
            del sys.modules[name]
        return code_version("their_package.method")


def test_docstrings_describe_options() -> None:
    text = """Options.

    Attributes:
        side: Height and
            width.
        norm: ``l1`` or ``l2``.
    """
    assert described(text) == {"side": "Height and width.", "norm": "l1 or l2."}


@pytest.mark.parametrize(("calibrates", "counts"), [(True, (9, 1)), (False, (10, 0))])
def test_only_a_method_that_calibrates_has_training_images_held_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, calibrates: bool, counts: tuple[int, int]
) -> None:
    monkeypatch.setattr(PatchCore, "uses_validation", calibrates)
    for index in range(10):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index}.png")
    collection = Collection(name="parts", title="Parts")
    scenario = Scenario(collection, "bolt", train=tuple(sorted(tmp_path.glob("*.png"))), validation=(), test=())
    sets = training_images(scenario, PatchCore(PatchCoreConfig()), 0, Cache(tmp_path / "cache", enabled=False))
    assert tuple(map(len, sets)) == counts
