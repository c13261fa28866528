import csv

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench.cli import app
from bench.datasets.cache import Cache
from bench.datasets.figures import draw_defect_areas, draw_image_sizes
from bench.datasets.selection import select_scenarios
from bench.datasets.statistics import Shrinking, describe
from reports.rendering.figures.style import encode

SIZE = (80, 160)


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def marked(*boxes):
    mask = np.zeros(SIZE, np.uint8)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = 255
    return mask


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data" / "parts" / "bolt"
    gray = np.full(SIZE, 90, np.uint8)
    for name in ("train/good/0", "train/good/1", "test/good/0", "test/bent/0", "test/bent/1"):
        write(folder / f"{name}.png", gray)
    write(folder / "test/cut/0.png", np.full((40, 40), 90, np.uint8))
    # a square, a speck that falls between the points that nearest takes, two that become one, two touching at a corner
    write(folder / "ground_truth/bent/0_mask.png", marked((8, 8, 16, 16), (41, 81, 1, 1)))
    write(folder / "ground_truth/bent/1_mask.png", marked((8, 8, 8, 7), (8, 16, 8, 8), (40, 40, 8, 8), (48, 48, 8, 8)))
    write(folder / "ground_truth/cut/0_mask.png", np.zeros((40, 40), np.uint8))
    return tmp_path / "data"


@pytest.fixture
def described(root, tmp_path):
    (scenario,) = select_scenarios("parts/bolt", root, Cache(tmp_path / "cache"))
    return describe(scenario, side=20)


def test_counts_and_sizes(described):
    assert (described.train, described.validation, described.normal, described.anomalous) == (2, 0, 1, 3)
    assert described.sizes == {(80, 160): 5, (40, 40): 1}


def test_regions_are_eight_connected_and_areas_shares_of_the_image(described):
    assert sorted(described.pixels.tolist()) == [1, 56, 64, 128, 256]
    assert described.shares == pytest.approx(described.pixels / (80 * 160))
    assert described.quartiles == pytest.approx([56 / 12800, 64 / 12800, 128 / 12800, 256 / 12800])


def test_which_regions_vanish_and_how_many_fewer_there_are(described):
    """Resized to 20 × 20, a pixel stands for 4 × 8: the speck is lost, and the gap of one pixel closes."""
    for resampling in ("nearest", "bilinear"):
        assert described.shrunk(resampling) == Shrinking(before=5, after=3, vanished=1), resampling
    shrunk = described.shrunk("nearest")
    assert shrunk.vanished_share == pytest.approx(0.2)
    assert shrunk.reduction == pytest.approx(0.4)


def test_at_full_size_nothing_is_lost(root, tmp_path):
    (scenario,) = select_scenarios("parts/bolt", root, Cache(tmp_path / "cache"))
    square = describe(scenario, side=160).shrunk("nearest")
    assert square == Shrinking(before=5, after=5, vanished=0)


def test_without_regions_shares_are_undefined():
    assert (Shrinking().reduction, Shrinking().vanished_share) == (None, None)


def test_figures_show_every_scenario_with_regions(described):
    figure = draw_defect_areas([described, described])
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["parts/bolt", "parts/bolt"]
    dots = next(line for line in axes.lines if line.get_marker() == "o")
    assert sorted(dots.get_xdata()) == pytest.approx(sorted(100 * described.shares))
    assert encode(figure, "png").startswith(b"\x89PNG")
    (axes,) = draw_image_sizes([described]).axes
    assert axes.collections[0].get_offsets().tolist() == [[160, 80], [40, 40]]


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_figures_and_numbers(root, tmp_path):
    out = tmp_path / "out"
    arguments = ["data", "stats", "parts", "--data-root", str(root), "--side", "20", "--out", str(out)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    assert done.exit_code == 0, done.output
    for part in ("parts/bolt", "80 × 160, 40 × 40", "masks of 20×20", "20.00", "40.00"):
        assert part in done.output
    names = {path.name for path in out.iterdir()}
    assert names == {f"{stem}.{kind}" for stem in ("defect_areas", "image_sizes") for kind in ("png", "pdf")} | {
        "scenarios.csv",
        "defects.csv",
    }
    with (out / "scenarios.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["scenario"], row["regions"], row["vanished_nearest_20"]) == ("parts/bolt", "5", "1")
    with (out / "defects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["pixels"]) for row in rows[:2]] == [("test/bent/0", "256"), ("test/bent/0", "1")]


def test_scenarios_without_masks_have_sizes_only(root):
    for mask in root.rglob("*_mask.png"):
        mask.unlink()
    done = CliRunner().invoke(app, ["data", "stats", "--data-root", str(root)])
    assert done.exit_code == 0, done.output
    assert "Images" in done.output
    assert "Defect regions" not in done.output
