"""``bench submit``: the tree that the owners of MVTec AD 2 describe, whole or refused."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cli_support import Command, CommandServer
from PIL import Image

from bench import submission
from bench.api import submit
from bench.datasets.images import decode_images
from bench.datasets.selection import select_scenarios
from bench.errors import DataError, UsageError
from bench.models import load_detector
from bench.submission import scale
from metrics import UpsampledMaps
from results.store import RunStore

pytestmark = pytest.mark.slow
"""The run that is submitted is made by the command line, which takes seconds."""

SCENARIOS = {"can": (20, 28), "vial": (26, 18)}
PRIVATE = {"can": 3, "vial": 2}


def write_copy(folder: Path, scenario: str) -> None:
    """Write a scenario in the layout of MVTec AD 2: noise, defects are bright squares, some lights are darker."""
    random = np.random.default_rng(len(scenario))
    size = SCENARIOS[scenario]

    def save(path: str, light: int = 0, *, bad: bool = False) -> None:
        pixels = random.integers(90, 120, (*size, 3), dtype=np.uint8) - np.uint8(light)
        mask = np.zeros(size, np.uint8)
        if bad:
            top, left = (int(random.integers(side - 6)) for side in size)
            mask[top : top + 5, left : left + 5] = 255
            pixels[mask > 0] += 60
        target = folder / scenario / path
        truth = target.parents[1] / "ground_truth/bad" / f"{target.stem}_mask.png"
        for file in (target, *([truth] if bad else [])):
            file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(target)
        if bad:
            Image.fromarray(mask).save(truth)

    for index in range(4):
        save(f"train/good/{index:03}_regular.png")
    for index in range(20):
        save(f"validation/good/{index:03}_regular.png")
    for index, (condition, light) in enumerate((("regular", 0), ("underexposed", 25), ("shift_1", 10))):
        for number in range(2):
            save(f"test_public/good/{3 * number + index:03}_{condition}.png", light)
            save(f"test_public/bad/{3 * number + index:03}_{condition}.png", light, bad=True)
    for index in range(PRIVATE[scenario]):
        save(f"test_private/{index:03}_regular.png")
        save(f"test_private_mixed/{index:03}_mixed.png", 20)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    for scenario in SCENARIOS:
        write_copy(folder / "mvtec_ad_2", scenario)
    return folder


def bench_run(bench: CommandServer, root: Path, out: Path, *arguments: str) -> Path:
    done = bench("run", "--datasets", "mvtec_ad_2", "--data-root", root, "--out", out, *arguments, folder=out.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def run(command_line: CommandServer, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    return bench_run(command_line, root, out, "--methods", "tiny", "--keep-models")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, plugin: Path) -> None:
    """Let the owners' collection have the two scenarios and the few images of the copies."""
    monkeypatch.setattr(submission, "PRIVATE_IMAGES", PRIVATE)
    monkeypatch.syspath_prepend(str(plugin))


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def described_tree(base: str, suffix: str) -> set[str]:
    """What the owners describe."""
    splits = {"test_private": "regular", "test_private_mixed": "mixed"}
    return {
        f"{base}/{scenario}/{split}/{index:03}_{name}.{suffix}"
        for scenario, count in PRIVATE.items()
        for split, name in splits.items()
        for index in range(count)
    }


@pytest.mark.usefixtures("small")
def test_the_tree_is_the_one_that_the_owners_describe(run: Path, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "submission"
    written = submit(run, out=out, data_root=root, device="cpu")
    assert files_in(out) == described_tree("anomaly_images", "tiff") | described_tree(
        "anomaly_images_thresholded", "png"
    )
    assert list(tmp_path.iterdir()) == [out]
    store = RunStore(run)
    for record, said in zip(store.records(), written, strict=True):
        (threshold,) = [item for item in record.thresholds if (item.level, item.rule) == ("pixel", "mean+3sd")]
        assert (said.name, said.threshold, said.factor) == (record.scenario, threshold, 1)
        assert said.images == dict.fromkeys(submission.SPLITS, PRIVATE[record.scenario])
        (scenario,) = select_scenarios(f"mvtec_ad_2/{record.scenario}", root, _cache(tmp_path))
        detector = load_detector(store.cell_directory(record))
        decoded = decode_images([image.path for image in scenario.unlabelled], (32, 32), _cache(tmp_path))
        maps = UpsampledMaps(detector.predict(decoded.pixels).maps.numpy(), decoded.sizes)
        for image, expected in zip(scenario.unlabelled, maps, strict=True):
            place = f"{scenario.name}/{image.path.parent.name}/{image.path.stem}"
            scores = tifffile.imread(out / f"anomaly_images/{place}.tiff")
            assert scores.dtype == np.float16
            assert scores.shape == SCENARIOS[scenario.name]
            assert np.array_equal(scores, expected.astype(np.float16))
            with Image.open(out / f"anomaly_images_thresholded/{place}.png") as thresholded:
                assert thresholded.mode == "L"
                called = np.asarray(thresholded)
            assert np.array_equal(called, np.where(expected.astype(np.float64) > threshold.value, 255, 0))


def _cache(folder: Path):
    from bench.datasets.cache import Cache

    return Cache(folder / "cache", enabled=False)


@pytest.mark.usefixtures("small")
def test_records_of_the_public_images_have_lights_and_thresholds(run: Path) -> None:
    for record in RunStore(run).records():
        assert {image.condition for image in record.images} == {"regular", "underexposed", "shift_1"}
        lights = {"regular", "shift_1", "underexposed", "changed"}
        assert {f"{light}/{name}" for light in lights for name in ("image_au_roc", "au_pro@0.05")} <= set(
            record.metrics
        )
        assert {threshold.images for threshold in record.thresholds} == {20}
        assert record.metrics["pixel_f1@mean+3sd"] is not None
        assert record.metrics["any_pixel_f1@image_fpr0.05"] is not None
    report = (run / "report/report.md").read_text()
    assert "Changed AU-PRO@0.05" in report
    assert "under changed light" in report


@pytest.mark.usefixtures("small")
def test_other_thresholds_and_none(run: Path, root: Path, tmp_path: Path) -> None:
    submit(run, out=tmp_path / "none", thresholds="none", data_root=root, device="cpu")
    assert files_in(tmp_path / "none") == described_tree("anomaly_images", "tiff")
    (first, _) = submit(run, out=tmp_path / "rate", thresholds="image_fpr0.05", data_root=root, device="cpu")
    assert first.threshold is not None
    assert "image_fpr0.05 of 20 validation images of the scenario" in first.described()
    with pytest.raises(
        UsageError, match=r"no threshold by the rule magic.*\n  Allowed: mean\+3sd, fpr0.05, image_fpr0.05"
    ):
        submit(run, out=tmp_path / "x", thresholds="magic", data_root=root, device="cpu")


@pytest.mark.usefixtures("small")
def test_nothing_lies_in_a_submission_but_itself(run: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    submit(run, out=tmp_path / "out", data_root=root, device="cpu")  # an empty folder will do
    with pytest.raises(UsageError, match="nothing else may lie in a submission"):
        submit(run, out=tmp_path / "out", data_root=root, device="cpu")


@pytest.mark.usefixtures("small")
def test_a_scenario_that_fails_leaves_nothing(run: Path, root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    model = next(copy.glob("cells/*-vial-*/model.safetensors"))
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged"):
        submit(copy, out=tmp_path / "out", data_root=root, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_the_owners_would_not_take_is_refused(bench: Command, run: Path, root: Path, tmp_path: Path) -> None:
    arguments = ("submit", run, "--data-root", root, "--out", "out")
    done = bench(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "can/test_private has 3 of 321 images, different: 003_regular" in done.stderr
    done = bench(*arguments, "--incomplete")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "can: 3 test_private and 3 test_private_mixed" in done.stdout
    assert "not whole: no cell of fabric" in done.stdout
    assert files_in(tmp_path / "out/anomaly_images")


def test_several_methods_and_other_collections_are_refused(
    bench: Command, command_line: CommandServer, run: Path, root: Path, data_root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    shutil.copytree(run, out)
    bench_run(command_line, root, out, "--methods", "tiny", "--seeds", "0,1")
    with pytest.raises(
        UsageError, match="this run has 2: tiny, seed 0; tiny, seed 1\n  Choose one with --method and --seed"
    ):
        submit(out, data_root=root, incomplete=True)
    assert bench("submit", out, "--data-root", root, "--incomplete", "--seed", 0).returncode == 3
    assert (out / "submission/anomaly_images/can").is_dir()
    with pytest.raises(UsageError, match="no cell is of --method patchcore\n  Allowed: tiny"):
        submit(out, data_root=root, method="patchcore")
    with pytest.raises(
        UsageError, match="have kept no model: can, vial\n  Run them again with bench run --keep-models"
    ):
        submit(out, data_root=root, seed=1)

    other = ("--datasets", "parts/bolt", "--data-root", data_root, "--out", "parts")
    assert bench("run", "--methods", "tiny", *other).returncode == 0
    done = bench("submit", "parts", "--data-root", data_root)
    assert done.returncode == 2
    assert "only MVTec AD 2 takes submissions, parts has parts" in done.stderr
    with pytest.raises(UsageError, match="is no run folder"):
        submit(tmp_path / "nowhere", data_root=root)


@pytest.mark.parametrize("largest", [65504.0, 1.0, 2.0**-4, 0.0, 65505.0, 3e38, 0.06, 1e-30])
def test_scores_are_scaled_only_where_float16_could_not_hold_them(largest: float) -> None:
    maps = [np.array([[largest, -largest / 3, 0]], np.float32)]
    factor = scale(maps)
    assert factor == 2.0 ** round(math.log2(factor))
    assert (factor == 1) == (largest == 0 or 2.0**-4 <= largest <= 65504)
    scaled = maps[0].astype(np.float64) * factor
    assert np.isfinite(scaled.astype(np.float16)).all()
    if factor != 1:
        assert 2**14 <= scaled.max() < 2**15


def test_the_owners_numbers_of_images_are_those_of_the_paper() -> None:
    assert sum(submission.PRIVATE_IMAGES.values()) == 2045
