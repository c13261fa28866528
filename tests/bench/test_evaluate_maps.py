"""``bench evaluate`` as users run it: on maps that a run kept, and on maps from elsewhere."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cli_support import Command, CommandServer
from rich.console import Console

from bench.datasets.pixels import image_size
from bench.errors import UsageError
from bench.evaluation import evaluate_maps
from bench.options import EvaluationOptions
from metrics import UpsampledMaps
from metrics.definitions import DEFINITIONS
from results.arrays import read_examples, read_maps, read_normal_maps
from results.definition_values import read_definitions
from results.regions import read_regions
from results.store import RunStore

pytestmark = pytest.mark.slow
"""Every test starts the command line several times, some seconds each."""


@pytest.fixture(scope="module")
def run(data_root: Path, command_line: CommandServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``tiny`` on two plain scenarios and on one in LOCO form that has kept its maps and models."""
    out = tmp_path_factory.mktemp("kept") / "out"
    done = command_line(
        *("run", "--methods", "tiny", "--datasets", "parts,demo/coins", "--data-root", data_root, "--out", out),
        *("--keep-maps", "--keep-models", "--hold-out"),
        folder=out.parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


Save = Callable[[Path, np.ndarray], None]


def save_tiff(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path.with_suffix(".tiff"), array)


def save_npy(path: Path, array: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), array.astype(np.float64))


@pytest.fixture
def maps(run: Path, data_root: Path, tmp_path: Path) -> Path:
    """The kept maps of the collection ``parts`` in the official layout, at the images' size."""
    return write_maps(run, data_root, tmp_path / "maps", save_tiff)


def write_maps(run: Path, data_root: Path, folder: Path, save: Save) -> Path:
    store = RunStore(run)
    for record in store.records():
        if record.collection.name == "parts":
            directory = store.cell_directory(record)
            normal = read_normal_maps(directory)
            assert normal is not None
            for name, array in (read_maps(directory) | dict(normal.maps)).items():
                size = image_size(data_root / "parts" / record.scenario / f"{name}.png")
                # Of training images those that are held out are the validation images.
                path = folder / record.scenario / name.replace("train/", "validation/")
                path.parent.mkdir(parents=True, exist_ok=True)
                save(path, UpsampledMaps([array], [size])[0])
    return folder


def metrics_of(run: Path) -> dict[tuple[str, str], dict[str, float | None]]:
    return {(record.collection.name, record.scenario): record.metrics for record in RunStore(run).records()}


def test_kept_maps_give_the_same_numbers_bit_by_bit(bench: Command, run: Path, data_root: Path, tmp_path: Path) -> None:
    done = bench("evaluate", run, "--data-root", data_root, "--out", "again")
    assert done.returncode == 0, done.stdout + done.stderr
    assert metrics_of(tmp_path / "again") == metrics_of(run)
    made_anew = {"key", "created", "command", "timings", "maps", "peak_memory"}
    before, after = RunStore(run).records(), RunStore(tmp_path / "again").records()
    assert [r.model_dump(exclude=made_anew) for r in after] == [r.model_dump(exclude=made_anew) for r in before]
    assert {r.maps.record for r in after if r.maps} == {r.key for r in before}
    assert (tmp_path / "again/report/means.csv").read_bytes() == (run / "report/means.csv").read_bytes()


def test_a_scenario_that_is_gone_costs_only_itself(bench: Command, run: Path, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/parts/nut")
    done = bench("evaluate", run, "--data-root", "data", "--out", "again")
    assert done.returncode == 3, done.stdout + done.stderr
    records = {(record.collection.name, record.scenario): record for record in RunStore(tmp_path / "again").records()}
    gone = records.pop(("parts", "nut")).failure
    assert gone is not None
    assert "unknown data set 'parts/nut'" in gone.reason
    assert all(record.metrics == metrics_of(run)[name] for name, record in records.items())


def test_kept_models_predict_the_same_maps_bit_by_bit(
    bench: Command, run: Path, data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    for maps in tmp_path.glob("run/cells/*/maps.npz"):
        maps.unlink()
    done = bench("evaluate", "run", "--with-models", "--data-root", data_root, "--out", "again")
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = RunStore(run), RunStore(tmp_path / "again")
    assert [(r.metrics, r.images, r.model) for r in after.records()] == [
        (r.metrics, r.images, r.model) for r in before.records()
    ]
    for old, new in zip(before.records(), after.records(), strict=True):
        kept, made = read_maps(before.cell_directory(old)), read_maps(after.cell_directory(new))
        assert kept.keys() == made.keys()
        assert all(np.array_equal(kept[name], made[name]) for name in kept)
        assert new.implementation["maps"] == f"predicted again by the kept model of {old.key[:12]}"
        assert new.maps is not None
        assert new.maps.record == old.key


def test_a_damaged_model_costs_its_cell(bench: Command, run: Path, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    model = next(tmp_path.glob("run/cells/*-bolt-*/model.safetensors"))
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    next(tmp_path.glob("run/cells/*-nut-*/model.safetensors")).unlink()
    arguments = ("evaluate", "run", "--with-models", "--data-root", data_root, "--datasets", "parts", "--out", "out")
    done = bench(*arguments)
    assert done.returncode == 3, done.stdout + done.stderr
    failures = [record.failure for record in RunStore(tmp_path / "out").records()]
    reasons = [failure.reason for failure in failures if failure is not None]
    assert "model.safetensors is damaged (its SHA-256" in reasons[0]
    assert "cannot read the model" in reasons[1]
    shutil.rmtree(tmp_path / "out")
    for description in tmp_path.glob("run/cells/*/model.json"):
        description.unlink()
    done = bench(*arguments)
    assert done.returncode == 2
    assert "no cell of run has kept its models\n  Run it again with bench run --keep-models" in done.stderr


@pytest.mark.parametrize("save", [save_tiff, save_npy])
def test_maps_from_elsewhere(bench: Command, run: Path, data_root: Path, tmp_path: Path, save: Save) -> None:
    maps = write_maps(run, data_root, tmp_path / "maps", save)
    done = bench("evaluate", maps, "--name", "Fremd & <neu>", "--data-root", data_root, "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    expected = metrics_of(run)
    for record in RunStore(tmp_path / "out").records():
        assert record.title == "Fremd & <neu>"
        assert record.deviations == ["anomaly maps computed elsewhere"]
        assert record.data is not None
        assert record.data.train is None
        pixels = {k: v for k, v in record.metrics.items() if not k.startswith("image_")}
        reference = expected["parts", record.scenario]
        assert pixels["pixel_f1@mean+3sd"] is not None
        assert pixels == pytest.approx({k: reference[k] for k in pixels}, abs=1e-6)
        assert record.thresholds[-1].calibrated_on == "training images held out elsewhere"
        highest = max(image.score for image in record.images)
        files = (maps / record.scenario / "test").glob("*/*")
        if save is save_npy:
            assert highest == max(np.load(file).max() for file in files)
        assert len(read_examples(RunStore(tmp_path / "out").cell_directory(record))) == 6
    assert "Fremd &amp; &lt;neu&gt;" in (tmp_path / "out/report/report.md").read_text()


def test_image_scores_can_be_given(bench: Command, maps: Path, data_root: Path, tmp_path: Path) -> None:
    names = [path.relative_to(maps / "nut").with_suffix("").as_posix() for path in maps.glob("nut/test/*/*")]
    table = maps / "nut/scores.csv"
    table.write_text("image,score\n" + "".join(f"{name},{float('good' not in name)}\n" for name in names))
    arguments = ("evaluate", maps, "--name", "m", "--datasets", "parts/nut", "--data-root", data_root, "--out", "out")
    assert bench(*arguments).returncode == 0
    (record,) = RunStore(tmp_path / "out").records()
    assert record.metrics["image_au_roc"] == 1.0
    assert record.config["image_score"] == "given"

    table.write_text("image,score\n" + "".join(f"{name},{float('good' not in name)}\n" for name in names[1:]))
    done = bench(*arguments)
    assert done.returncode == 3
    assert f"different: {names[0]}" in done.stdout.replace("\n", " ")


def test_other_definitions_stay_apart_from_the_results(
    bench: Command, run: Path, data_root: Path, tmp_path: Path
) -> None:
    done = bench("evaluate", run, "--data-root", data_root, "--out", "out", "--definitions", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no other definitions: AU-PRO is not defined here" in done.stdout  # the scenario in LOCO form
    store = RunStore(tmp_path / "out")
    for record in store.records():
        regions = read_regions(store.cell_directory(record))
        name, halves = ("au_pro@0.3", [regions])
        if record.collection.name == "demo":
            name = "au_spro@0.05"
            halves = [[r for r in regions if r.defect.startswith(half)] for half in ("structural", "logical")]
        mean = np.mean([np.mean([region.values[name] for region in half]) for half in halves])
        assert mean == pytest.approx(record.metrics[name], abs=1e-12)
        found = {value.name: value.value for value in read_definitions(store.cell_directory(record))}
        assert bool(found) == (record.collection.name == "parts")
        if found:
            assert list(found) == [definition.name for definition in DEFINITIONS]
            assert found["exact@0.3"] == record.metrics["au_pro@0.3"]
            assert found["exact@0.05"] == record.metrics["au_pro@0.05"]
    report = tmp_path / "out/report"
    assert "100 ranks" not in (report / "metrics.csv").read_text() + (report / "means.csv").read_text()
    with (report / "definitions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * len(DEFINITIONS)
    assert "under other definitions of AU-PRO" in (report / "report.md").read_text()
    assert (report / "figures/parts-definitions.png").is_file()
    assert r"\input{tables/parts-definitions.tex}" in (report / "report.tex").read_text()

    assert bench("evaluate", run, "--definitions", "some").returncode == 2


def test_a_bad_map_costs_its_scenario_and_is_forgotten_once_mended(
    bench: Command, maps: Path, data_root: Path, tmp_path: Path
) -> None:
    bad = maps / "bolt/test/dent/001.tiff"
    good = tifffile.imread(bad)
    broken = good.copy()
    broken[3, 4] = np.nan
    tifffile.imwrite(bad, broken)
    arguments = ("evaluate", maps, "--name", "m", "--data-root", data_root, "--out", "out")
    done = bench(*arguments)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "test/dent/001" in done.stdout
    assert "row 3, column 4 is nan" in done.stdout
    assert [(r.scenario, r.status) for r in RunStore(tmp_path / "out").records()] == [("bolt", "failed"), ("nut", "ok")]

    tifffile.imwrite(bad, good)
    assert bench(*arguments).returncode == 0
    assert [(r.scenario, r.status) for r in RunStore(tmp_path / "out").records()] == [("bolt", "ok"), ("nut", "ok")]


def damage_truncate(maps: Path) -> str:
    file = maps / "bolt/test/good/000.tiff"
    file.write_bytes(file.read_bytes()[:200])
    return "cannot read the anomaly map"


def damage_empty(maps: Path) -> str:
    (maps / "bolt/test/good/000.tiff").write_bytes(b"")
    return "cannot read the anomaly map"


def damage_remove(maps: Path) -> str:
    (maps / "bolt/test/good/000.tiff").rename(maps / "bolt/test/good/00.tiff")
    return "1 of 7 test images of parts/bolt have no anomaly map"


def damage_double(maps: Path) -> str:
    np.save(maps / "bolt/test/good/000.npy", np.zeros((40, 48)))
    return "test/good/000 of parts/bolt has 2 maps"


def damage_size(maps: Path) -> str:
    tifffile.imwrite(maps / "bolt/test/good/000.tiff", np.zeros((20, 24), np.float32))
    return "has 20×24 pixels, its image"


def damage_channels(maps: Path) -> str:
    tifffile.imwrite(maps / "bolt/test/good/000.tiff", np.zeros((40, 48, 3), np.float32), photometric="rgb")
    return "expected one (height, width) array"


def damage_pickle(maps: Path) -> str:
    (maps / "bolt/test/good/000.tiff").unlink()
    np.save(maps / "bolt/test/good/000.npy", np.array([{}], object), allow_pickle=True)
    return "cannot read the anomaly map"


def damage_archive(maps: Path) -> str:
    (maps / "bolt/test/good/000.tiff").unlink()
    np.savez(maps / "bolt/test/good/000.npz", a=np.zeros((40, 48)), b=np.zeros((40, 48)))
    return "it holds 2 arrays (a, b)"


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_empty,
        damage_remove,
        damage_double,
        damage_size,
        damage_channels,
        damage_pickle,
        damage_archive,
    ],
)
def test_what_is_wrong_with_a_map_is_said(
    maps: Path, data_root: Path, tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    message = damage(maps)
    options = EvaluationOptions(maps, name="m", data_root=data_root, out=tmp_path / "out")
    assert evaluate_maps(options, Console(quiet=True)) == 3
    failed, ok = RunStore(tmp_path / "out").records()
    assert failed.failure is not None
    assert message in failed.failure.log_tail
    assert (ok.scenario, ok.status) == ("nut", "ok")


def test_maps_at_the_networks_resolution_are_upsampled_on_request(
    bench: Command, run: Path, data_root: Path, tmp_path: Path
) -> None:
    store = RunStore(run)
    for record in store.records():
        for name, array in read_maps(store.cell_directory(record)).items():
            path = tmp_path / "maps" / record.collection.name / record.scenario / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
    (tmp_path / "maps/parts/bolt/test/good/more.npy").write_bytes(b"belongs to no image")
    arguments = ("evaluate", "maps", "--name", "m", "--data-root", data_root)
    assert bench(*arguments, "--datasets", "parts", "--out", "refused").returncode == 3
    done = bench(*arguments, "--datasets", "parts,demo/coins", "--out", "out", "--upsample")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 map belongs to no test image and is left out: test/good/more.npy" in done.stdout
    for record in RunStore(tmp_path / "out").records():
        expected = metrics_of(run)[record.collection.name, record.scenario]
        # Scores of images are the maxima of the maps here, and no thresholds are chosen: these maps are of test images.
        kept = [name for name in expected if "image" not in name and "@mean" not in name and "@fpr" not in name]
        assert {name: record.metrics[name] for name in kept} == {name: expected[name] for name in kept}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": "nowhere"}, "there is no folder .*nowhere"),
        ({"maps": "maps"}, "--name is missing"),
        ({"maps": "maps", "name": "m", "datasets": "part"}, "did you mean parts"),
        ({"maps": "empty", "name": "m"}, "has no maps of parts/bolt, parts/nut"),
        ({"maps": "maps", "name": "m", "with_models": True}, "--with-models is for run folders"),
        ({"maps": "run", "name": "m"}, "--name is for maps from elsewhere"),
        ({"maps": "run", "out": "run"}, "holds the maps: choose another folder"),
        ({"maps": "run", "datasets": "demo/brick"}, "no cell of .* is of demo/brick: it has .*parts/nut"),
    ],
)
def test_commands_that_make_no_sense(
    run: Path, maps: Path, data_root: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copytree(run, tmp_path / "run")
    given = {name: tmp_path / value if name in ("maps", "out") else value for name, value in options.items()}
    with pytest.raises(UsageError, match=message):
        evaluate_maps(EvaluationOptions(data_root=data_root, **given), Console(quiet=True))


def test_kept_maps_of_other_files_are_refused(bench: Command, run: Path, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root, tmp_path / "data")
    image = tmp_path / "data/parts/bolt/test/good/000.png"
    shutil.copy(image.with_name("001.png"), image)
    done = bench("evaluate", run, "--data-root", "data", "--datasets", "parts", "--out", "out")
    assert done.returncode == 3
    assert "the files of parts/bolt are not those that the maps in" in done.stdout
    assert [(r.scenario, r.status) for r in RunStore(tmp_path / "out").records()] == [("bolt", "failed"), ("nut", "ok")]


def test_a_run_without_maps_says_how_to_get_them(bench: Command, run: Path, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    kept = sorted(tmp_path.glob("run/cells/*/maps.npz"), key=lambda file: "-bolt-" not in file.parent.name)
    kept[0].unlink()
    done = bench("evaluate", "run", "--data-root", data_root, "--datasets", "parts", "--out", "out")
    assert done.returncode == 3
    assert "run the cell again with --keep-maps" in done.stdout
    for file in kept[1:]:
        file.unlink()
    done = bench("evaluate", "run", "--data-root", data_root, "--out", "other")
    assert done.returncode == 2
    assert "Run it again with bench run --keep-maps" in done.stderr


def test_a_damaged_definitions_file_is_named(bench: Command, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    cell = next(tmp_path.glob("run/cells/*bolt*"))
    (cell / "definitions.json").write_text(json.dumps([{"name": 1}]))
    done = bench("report", "run")
    assert done.returncode == 2
    assert "definitions.json is damaged" in done.stderr
