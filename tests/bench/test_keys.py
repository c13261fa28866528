"""What gives a cell another key: of its fit, or of its scores only."""

import dataclasses
import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_support import REPOSITORY, write_scenario

import bench.datasets.layouts
from bench import keys, source_digest
from bench.cells import Cell, Entrant
from bench.datasets.cache import Cache
from bench.datasets.scenario import Scenario
from bench.options import RunOptions, resolve
from bench.plan import make_plan
from bench.protocol import Protocol
from methods.registry import BUILT_IN, load_method
from results.record import Collection

Keys = dict[str, tuple[str, str]]
"""Per method the key of its fit and that of its scores."""


@pytest.fixture
def root(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with one scenario; the method ``tiny`` is installed."""
    monkeypatch.syspath_prepend(str(plugin))
    write_scenario(tmp_path / "data/parts/bolt")
    return tmp_path / "data"


def planned(root: Path, **options: object) -> Cell:
    """The cell of ``tiny`` on the one scenario, all code read anew."""
    source_digest.forget()
    given = {"methods": "tiny", "data_root": root, **options}
    (cell,) = make_plan(resolve(RunOptions, given, "test"), Cache(root.parent / "cache")).cells
    return cell


def keys_of(root: Path, **options: object) -> tuple[str, str]:
    """The keys of that cell's fit and of its scores, as in a process of its own."""
    keys.installed.cache_clear()
    cell = planned(root, **options)
    return cell.fit_key, cell.key


def keys_of_methods(root: Path) -> Keys:
    """The keys of a cell of each built-in method, and of one that another package brings, as in a new process."""
    keys.installed.cache_clear()
    scenario, keys_of_all = planned(root).scenario, {}
    for name in ("tiny", *BUILT_IN):
        method = load_method(name)
        entrant = Entrant(name, method.title, method.source, method.Config(), None, (), (), None)
        fit = keys.fit_key(entrant, scenario, seed=0, train_scale=1.0, precision="fp32", tf32=False, device="cpu")
        keys_of_all[name] = (fit, keys.score_key(fit, scenario))
    return keys_of_all


Edit = Callable[[str, Callable[[str], str]], None]


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Edit modules, as far as anybody who reads their files can see."""
    edits: dict[str, Callable[[str], str]] = {}
    real = source_digest.source_of

    def source_of(module: str) -> tuple[str, str]:
        text, package = real(module)
        change = edits.get(module, edits.get("*"))
        return change(text) if change else text, package

    monkeypatch.setattr(source_digest, "source_of", source_of)
    yield edits.__setitem__
    source_digest.forget()


def with_another_line(text: str) -> str:
    return f"{text}\n_ANOTHER = 1\n"


def replaced(line: str, instead: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert line in text
        return text.replace(line, instead)

    return change


def reworded(text: str) -> str:
    """Other docstrings, more comments and blank lines."""
    return re.sub(r'"""(?=[A-Z])', '"""In other words. ', text).replace("\nclass ", "\n\n\n# A class.\nclass ")


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": 1},
        {"train_scale": 0.5},
        {"precision": "bf16", "force": True},
        {"tf32": True},
        {"set": {"tiny": {"norm": "squared"}}},
    ],
)
def test_another_option_is_another_fit(root: Path, options: dict[str, object]) -> None:
    fit, score = keys_of(root)
    changed = keys_of(root, **options)
    assert changed[0] != fit
    assert changed[1] != score


def test_how_a_run_is_carried_out_changes_nothing(root: Path) -> None:
    carried_out = {"workers": 3, "keep_maps": True, "keep_models": True, "force": True, "retry_failed": True}
    assert keys_of(root) == keys_of(root, **carried_out, weights_dir=root, out=root)


def test_the_test_images_concern_the_scores_and_the_normal_ones_the_fit(root: Path) -> None:
    before = keys_of(root)
    shutil.copy(root / "parts/bolt/test/good/000.png", root / "parts/bolt/test/good/009.png")
    more_to_test = keys_of(root)
    assert more_to_test[0] == before[0]
    assert more_to_test[1] != before[1]
    shutil.copy(root / "parts/bolt/train/good/000.png", root / "parts/bolt/train/good/009.png")
    assert keys_of(root)[0] != before[0]


@pytest.mark.parametrize(
    ("rules", "fit_again"), [({"fpr_limits": (0.1,)}, False), ({"validation_fraction": 0.2}, True)]
)
def test_a_rule_of_the_protocol(
    root: Path, monkeypatch: pytest.MonkeyPatch, rules: dict[str, object], fit_again: bool
) -> None:
    before = keys_of(root)
    monkeypatch.setattr(keys, "PROTOCOL", Protocol(**rules))
    fit, score = keys_of(root)
    assert (fit != before[0]) is fit_again
    assert score != before[1]


@pytest.mark.slow
def test_docstrings_and_comments_change_no_key(root: Path, edit: Edit) -> None:
    before = keys_of_methods(root)
    edit("*", reworded)
    assert keys_of_methods(root) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "change"),
    [
        ("metrics.kernels", with_another_line),
        ("metrics.pixels", with_another_line),
        ("bench.scoring", replaced("saturation=row", "saturation=0 or row")),
        ("bench.datasets.mask_values", replaced("+ 1) // 2", "+ 1) // 3")),
        ("bench.cell", replaced("PREDICTION_BATCH = 8", "PREDICTION_BATCH = 9")),
    ],
)
def test_code_that_scores_changes_all_scores_and_no_fit(
    root: Path, edit: Edit, module: str, change: Callable[[str], str]
) -> None:
    before = keys_of_methods(root)
    edit(module, change)
    after = keys_of_methods(root)
    assert all(after[method][0] == fit and after[method][1] != score for method, (fit, score) in before.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "change"),
    [
        ("bench.datasets.images", replaced("Resampling.BILINEAR", "Resampling.BICUBIC")),
        ("bench.cell", replaced("torch.randperm(count", "torch.randperm(1 * count")),
        ("methods.common.seeding", with_another_line),
        ("methods.detector", with_another_line),
        ("methods.training_length", with_another_line),
    ],
)
def test_code_that_all_fits_share_changes_all(
    root: Path, edit: Edit, module: str, change: Callable[[str], str]
) -> None:
    before = keys_of_methods(root)
    edit(module, change)
    after = keys_of_methods(root)
    assert all(after[method][0] != fit and after[method][1] != score for method, (fit, score) in before.items())


@pytest.mark.parametrize(
    "module",
    [
        "bench.cli",
        "bench.datasets.cache",
        "bench.datasets.catalogue",
        "bench.errors",
        "bench.options",
        "bench.progress",
        "bench.recording",
        "methods.config",
        "methods.errors",
        "methods.registry",
        "methods.weights.files",
        "metrics",
        "metrics.bootstrap",
        "metrics.definitions",
        "metrics.errors",
        "metrics.operating",
        "reports.report",
        "results.record",
    ],
)
def test_code_that_only_asks_stores_or_shows_changes_no_key(root: Path, edit: Edit, module: str) -> None:
    before = keys_of(root)
    edit(module, with_another_line)
    assert source_digest.source_of(module)[0].endswith("_ANOTHER = 1\n")
    assert keys_of(root) == before


@pytest.fixture(scope="module")
def importers() -> dict[str, set[str]]:
    """Per module of the methods, which built-in methods import it: the interpreter's own account."""
    code = (
        "import importlib, json, sys\n"
        "loaded = {}\n"
        f"for name, reference in {BUILT_IN}.items():\n"
        "    for module in [module for module in sys.modules if module.partition('.')[0] == 'methods']:\n"
        "        del sys.modules[module]\n"
        "    importlib.import_module(reference.partition(':')[0])\n"
        "    loaded[name] = [module for module in sys.modules if module.startswith('methods.')]\n"
        "print(json.dumps(loaded))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded: dict[str, list[str]] = json.loads(done.stdout)
    modules = {module for own in loaded.values() for module in own}
    return {module: {name for name in loaded if module in loaded[name]} for module in modules}


@pytest.mark.slow
@pytest.mark.parametrize("room", ["methods.common", "methods.efficientad", "methods"])
def test_a_shared_helper_changes_the_methods_that_import_it(
    root: Path, edit: Edit, importers: dict[str, set[str]], room: str
) -> None:
    before = keys_of_methods(root)
    folder = Path(str(importlib.import_module(room).__file__)).parent
    helpers = [f"{room}.{module.name}" for module in pkgutil.iter_modules([str(folder)]) if not module.ispkg]
    shared = {
        "methods.detector",
        "methods.training_length",
        "methods.common.precision",
        "methods.common.seeding",
    }  # of all, see above
    apart = {"methods.config", "methods.errors", "methods.registry"}
    for helper in sorted({*helpers} - shared - apart):
        edit(helper, with_another_line)
        after = keys_of_methods(root)
        edit(helper, str)
        assert {method for method in before if after[method] != before[method]} == importers.get(helper, set()), helper


def test_a_package_that_a_method_names_changes_its_keys_only(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "packages/colours-1.dist-info"
    information.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setattr(load_method("tiny"), "packages", ("colours",))
    found = []
    for version in ("1.0", "1.1"):
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: colours\nVersion: {version}\n")
        found.append(keys_of_methods(root))
    assert found[0]["tiny"][0] != found[1]["tiny"][0]
    assert found[0]["patchcore"] == found[1]["patchcore"]


@pytest.mark.parametrize(("package", "fit_again"), [("numba", False), ("pillow", True)])
def test_a_package_that_everything_goes_through(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, fit_again: bool
) -> None:
    before = keys_of(root)
    information = tmp_path / f"packages/{package}-1000.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1000.0\n")
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    fit, score = keys_of(root)
    assert (fit != before[0]) is fit_again
    assert score != before[1]


def test_the_packages_that_metrics_import_are_in_the_key() -> None:
    scenario = Scenario(Collection(name="parts", title="Parts"), "bolt", train=(), validation=(), test=())
    places = source_digest.reached(*keys.score_roots(scenario))
    metrics = [place for place in places if place.startswith("metrics.")]
    imported = {
        target.partition(".")[0] for module in metrics for _, target in source_digest.read_module(module).imports
    }
    foreign = imported - sys.stdlib_module_names - {"metrics"}
    assert len(metrics) > 5
    assert foreign == set(keys.SCORING_PACKAGES) - set(keys.DECODING_PACKAGES)


def test_a_new_layout_changes_the_cells_that_are_read_by_it(
    root: Path, tmp_path: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys_of(root)
    layouts = bench.datasets.layouts
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(tmp_path / "layouts")])
    text, _ = source_digest.source_of("bench.datasets.layouts.mvtec")
    (tmp_path / "layouts").mkdir()
    (tmp_path / "layouts/of_theirs.py").write_text(text)
    of_theirs = importlib.import_module("bench.datasets.layouts.of_theirs")
    assert keys_of(root) == before

    scenario = planned(root).scenario
    read = of_theirs.LAYOUT.read(scenario.folder.parent, scenario.name, scenario.cache)
    assert dataclasses.replace(read, layout=scenario.layout) == scenario
    first, ours = keys.score_key("maps", read), keys.score_key("maps", scenario)
    assert first != ours
    edit("bench.datasets.layouts.of_theirs", with_another_line)
    source_digest.forget()
    assert keys.score_key("maps", read) != first
    assert keys.score_key("maps", scenario) == ours
    monkeypatch.delitem(sys.modules, "bench.datasets.layouts.of_theirs")


def test_a_cell_whose_weights_were_missing_is_another_once_they_are_there(root: Path, tmp_path: Path) -> None:
    def cells() -> dict[str, Cell]:
        settings = {"patchcore": {"backbone_weights": str(tmp_path / "own.pth")}}
        given = {"methods": "tiny,patchcore", "data_root": root, "set": settings}
        plan = make_plan(resolve(RunOptions, given, "test"), Cache(tmp_path / "cache"))
        return {cell.entrant.name: cell for cell in plan.cells}

    missing = cells()
    assert "no weights file at" in missing["patchcore"].entrant.unavailable
    assert not missing["tiny"].entrant.unavailable
    (tmp_path / "own.pth").write_bytes(b"weights")
    there = cells()
    assert not there["patchcore"].entrant.unavailable
    assert there["patchcore"].key != missing["patchcore"].key
    assert there["tiny"].key == missing["tiny"].key
