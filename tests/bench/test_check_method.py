"""``bench check-method``: a good detector passes, and a planted fault of each kind is named."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_support import Command

from bench.cli import main
from bench.commands.check_method import CheckMethodOptions, check_method
from methods.conformance import CHECKS, check_detector
from methods.registry import load_method

PLUGIN = Path(__file__).parent / "plugin"
TINY = f"{PLUGIN / 'tiny_detectors.py'}:Tiny"

# The fault, the check that names it, and what the explanation says.
FAULTS = [
    ("OptionsNotFrozen", "options", "UnfrozenConfig is not frozen"),
    ("OptionsNotHashable", "options", "unhashable type"),
    ("NoTitle", "declarations", "title is ''"),
    ("UnknownPackage", "declarations", "'no-such-package', which is not installed"),
    ("HidesItsOptions", "row", "The preset 'embedded'"),
    ("DigestMissing", "weights", "net from download has the digest None"),
    ("EmbedsNothing", "embedded", "net (of 2021) is downloaded"),
    ("BelievesInWeights", "missing-weights", "no-such-weights.safetensors is believed"),
    ("OpensMissingWeights", "missing-weights", "raises FileNotFoundError"),
    ("NamesNoFile", "missing-weights", "does not name the file: the weights are missing"),
    ("Crashes", "fit", "ZeroDivisionError: nobody expected this (faulty_detectors.py, line"),
    ("NotDeterministic", "determinism", "Two fits with seed 0: maps differ by"),
    ("LearnsFromItsObserver", "observed", "A fit that is observed and one that is not: maps differ by"),
    ("ShowsAnotherState", "observed", "The last state shown and the fitted detector: maps differ by"),
    ("CountsEpochsBackwards", "observed", "The states are said to be those after [2.0, 1.0] epochs"),
    ("NeedsTwoImages", "one-image", "100% of the maps' values are not finite"),
    ("DividesByContrast", "constant", "100% of the maps' values are not finite after a fit on images of one colour"),
    ("DividesByColour", "gray", "100% of the values of gray, black and white images' maps are not finite"),
    ("SaysNothing", "progress", "reported nothing"),
    ("CountsFromZero", "progress", "'tidying up' reported 0 of 3"),
    ("TrainsLonger", "training-length", "says 20; after the fit training_steps is 21"),
    ("KeepsNoLosses", "training-length", "kept no loss"),
    ("HoldsImagesOutForNothing", "validation", "did not read a validation image"),
    ("ReadsPhotographs", "photographs", "uses_photographs is False, and the fit asked"),
    ("ReadsNoPhotographs", "photographs", "uses_photographs is True, and the fit did not"),
    ("WritesFile", "files", "log.txt"),
    ("TurnsGradientsOff", "global-state", "Fitting changed whether gradients are computed"),
    ("DrawsWhilePredicting", "global-state", "Predicting changed the state of PyTorch's global generator"),
    ("NotFinite", "output", "of the maps are not finite"),
    ("DoublePrecision", "output", "maps are float64"),
    ("KeepsTheChannel", "output", "the shape (2, 1, 32, 32)"),
    ("SquareMapsOfWideImages", "non-square", "Images are 32 x 64, their maps 32 x 32"),
    ("Inverted", "orientation", "Normal images score up to"),
    ("Mirrored", "orientation", "in the defect and"),
    ("NormalisesByBatch", "batch-size", "Images alone and in a batch: maps differ"),
    ("ComparesWithFirst", "batch-size", "Images alone and in a batch: maps differ"),
    ("RemembersImages", "test-data", "The same images before and after another: maps differ"),
    ("OverwritesImages", "input", "of the pixel values of uint8 images were overwritten"),
    ("LevelsOnly", "pixel-range", "Floating images 0-1 and uint8 images: maps differ"),
    ("AnotherModuleEachTime", "module", "another module at each call"),
    ("PredictsOtherwise", "module", "module() and predict(): scores differ"),
    ("WantsGradients", "no-gradient", "1 parameters want or hold a gradient: gray.weight"),
    ("StaysInTraining", "no-gradient", "layers are in training mode: the module itself, gray"),
    ("ForgetsThatItIsNotFitted", "unfitted", "raises AttributeError"),
    ("MissesTensor", "save-restore", "Before and after saving: maps differ"),
    ("AcceptsAnyState", "wrong-state", "A state that lacks mean is accepted"),
    ("OverflowsInHalf", "fp16", "In fp16 100% of the maps are not finite"),
    ("ReturnsHalf", "bf16", "In bf16 the maps are bfloat16"),
    ("MisspellsItsNetwork", "bf16", "no attribute `grey`"),
    ("BranchesOnValues", "export", "data-dependent"),
]
# Other checks that may fail by the same fault; no others may.
ALSO = {
    "DigestMissing": {"embedded"},
    "NotDeterministic": {"observed"},
    "NotFinite": {"observed", "one-image", "gray", "constant", "orientation", "bf16", "fp16"},
    "DoublePrecision": {"bf16", "fp16"},
    "RemembersImages": {"orientation", "batch-size", "pixel-range", "module", "save-restore"},
    "ReturnsHalf": {"fp16"},
    "MisspellsItsNetwork": {"fp16"},
}


Examine = Callable[..., tuple[int, str]]


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Examine:
    """Run the command in this process; return its exit code and what it printed."""
    monkeypatch.setenv("COLUMNS", "400")

    def call(detector: str, *excepted: str) -> tuple[int, str]:
        return check_method(CheckMethodOptions(detector, except_=list(excepted))), capsys.readouterr().out

    return call


@pytest.mark.slow
def test_a_good_detector_in_a_file_of_its_own_passes(bench: Command) -> None:
    run = bench("check-method", TINY, "--set", "norm=squared", "--except", "gray")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    shown = [line.split()[1] for line in run.stdout.splitlines() if line[:1] in "✓✗!–" and line[:1]]
    assert shown == list(CHECKS)
    assert "Tiny, norm=squared" in run.stdout
    assert "28 promises kept, 0 broken, 4 not applicable, 1 excepted" in run.stdout


def test_an_installed_detector_passes(examine: Examine, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plugin))
    code, output = examine("tiny", "export")
    assert code == 0, output


def test_files_in_their_place_are_no_fault(examine: Examine) -> None:
    code, output = examine(f"{PLUGIN / 'faulty_detectors.py'}:WritesTemporaryFile", "export")
    assert code == 0, output


def test_the_checks_from_python(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(plugin))
    outcomes = check_detector(load_method("tiny"), {"side": 16}, exceptions={"export": "takes a second"})
    assert [outcome.name for outcome in outcomes] == list(CHECKS)
    assert not [outcome for outcome in outcomes if outcome.broken]
    assert str(outcomes[-1]) == "export: excepted\ntakes a second"


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "check", "explanation"), FAULTS, ids=[fault for fault, _, _ in FAULTS])
def test_a_planted_fault_is_named(
    examine: Examine, fault: str, check: str, explanation: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAULT_FOLDER", str(tmp_path))
    slow = [] if check == "export" else ["export"]
    with torch.set_grad_enabled(True):  # puts back what a fault leaves changed
        code, output = examine(f"{PLUGIN / 'faulty_detectors.py'}:{fault}", *slow)
    assert code == 3
    broken = {line.split()[1] for line in output.splitlines() if line.startswith("✗")}
    assert {check} <= broken <= {check} | ALSO.get(fault, set()), output
    assert re.search(rf"^✗ {check} +.*{re.escape(explanation)}", output, re.MULTILINE), output


def test_every_check_has_a_fault() -> None:
    assert {check for _, check, _ in FAULTS} == set(CHECKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tinny"], "or FILE:CLASS"),
        (["nowhere.py:Mine"], "nowhere.py does not exist"),
        ([f"{TINY}e"], "did you mean 'Tiny'"),
        ([TINY, "--set", "nrm=squared"], "did you mean 'norm'"),
        ([TINY, "--set", "norm"], "--set does not take ['norm']: Value error, 'norm' is not of the form OPTION=VALUE"),
        ([TINY, "--except", "grey"], "did you mean 'gray'"),
        (["broken.py:Mine"], "line 2: NameError: name 'nothing' is not defined"),
    ],
)
def test_a_command_that_makes_no_sense_says_how_it_would(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    # As in a process of its own: another test may have imported the installed package.
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.delitem(sys.modules, "tiny_detectors", raising=False)
    monkeypatch.setattr(sys, "argv", ["bench", "check-method", *arguments])
    Path("broken.py").write_text("import torch\nnothing\n")
    with pytest.raises(SystemExit, match="2"):
        main()
    assert message in capsys.readouterr().err
