import math

import numpy as np
import pytest
from brute_force import SCORES, pixel_values, random_case, random_defects, saturated_value
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import metrics
from metrics import Defect, saturated


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(SCORES)), st.integers(1, 4), st.floats(0.01, 1))
def test_equals_the_definition(seed, kind, images, limit):
    maps, _ = random_case(seed, kind, images)
    defects = random_defects(seed, maps)
    result = metrics.evaluate_saturated(maps, defects, (limit,), threads=1)
    if result.undefined:
        assert math.isnan(result.au_spro[limit])
    else:
        assert result.au_spro[limit] == pytest.approx(saturated_value(maps, defects, limit), abs=1e-9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(SCORES)), st.floats(0.01, 0.6), st.floats(0.1, 1))
def test_any_guess_of_the_lowest_score_gives_the_same(seed, kind, limit, margin):
    maps, _ = random_case(seed, kind, 3)
    defects = random_defects(seed, maps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saturated, "MARGIN", margin)
        result = metrics.evaluate_saturated(maps, defects, (limit,), threads=1)
    assume(not result.undefined)
    assert result.au_spro[limit] == pytest.approx(saturated_value(maps, defects, limit), abs=1e-9)


class Counted(list):
    """Maps that count how often they are read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_low_scores_are_left_out_unless_they_matter(kind):
    """The first guess of the lowest score that matters comes from images with defects and can be too high."""
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 40), bool)
    mask[5:15, 5:15] = True
    bad = [rng.random((40, 40)).astype(kind) + mask * kind(0.3) for _ in range(2)]
    defects = [[Defect(mask, 60)], [Defect(mask, 100)], []]
    for normal, reads in (
        (rng.random((40, 40)).astype(np.float32), 5),
        ((rng.integers(0, 99, (200, 200)) * 1e-5).astype(np.float32), 8),
    ):
        maps = Counted([*bad, normal])
        found = metrics.evaluate_saturated(maps, defects, (0.05,), threads=1).au_spro[0.05]
        assert found == pytest.approx(saturated_value([*bad, normal], defects, 0.05), abs=1e-9)
        assert maps.reads == reads


def test_without_saturation_it_is_au_pro():
    maps, _ = random_case(3, "smooth", 3)
    masks = [None, *(np.zeros(m.shape, bool) for m in maps[1:])]
    for mask in masks[1:]:
        mask[:2, :2] = True
    defects = [[] if m is None else [Defect(m, int(m.sum()))] for m in masks]
    expected = pixel_values(maps, masks, (0.3,))["au_pro@0.3"]
    assert metrics.evaluate_saturated(maps, defects, (0.3,)).au_spro[0.3] == pytest.approx(expected, abs=1e-12)


def test_corrections_are_reported_by_image():
    mask = np.eye(3)
    maps = np.random.default_rng(0).random((2, 3, 3))
    result = metrics.evaluate_saturated(
        maps,
        [[], [Defect(mask, 9), Defect(mask, 0), Defect(np.zeros((3, 3)), 1)]],
        (1.0,),
        names=["good/0", "bad/1"],
    )
    assert result.regions.saturation.tolist() == [3, 1]
    assert result.regions.image.tolist() == [1, 1]
    assert [note.split(":")[0] for note in result.notes] == [f"image 1 (bad/1), defect {i}" for i in range(3)]


@pytest.mark.parametrize(
    ("defects", "message"),
    [
        ([Defect(np.eye(3), -1)], r"image 1, defect 0: saturation .* is -1"),
        ([Defect(np.eye(3), 0.5)], r"image 1, defect 0: saturation .* is 0.5"),
        ([Defect(np.eye(3), math.nan)], r"image 1, defect 0: saturation .* is nan"),
        ([Defect(np.eye(3), math.inf)], r"image 1, defect 0: saturation .* is inf"),
        ([Defect(np.eye(3), 1), Defect(np.eye(4), 1)], r"image 1, defect 1: the mask has shape \(4, 4\)"),
        ([Defect(np.eye(4), 1)], r"image 1: the map has shape \(3, 3\)"),
    ],
)
def test_unusable_defects(defects, message):
    with pytest.raises(metrics.MetricError, match=message):
        metrics.evaluate_saturated(np.zeros((2, 3, 3), np.float32), [[], defects])


def test_undefined_is_nan_with_a_reason():
    result = metrics.evaluate_saturated(np.zeros((2, 3, 3), np.float32), [[], []])
    assert math.isnan(result.au_spro[0.05])
    assert result.undefined == {"au_spro@0.05": "no image has a defect"}
    result = metrics.evaluate_saturated(np.zeros((1, 3, 3), np.float32), [[Defect(np.ones((3, 3)), 2)]])
    assert result.undefined == {"au_spro@0.05": "every pixel is a defect pixel"}
    result = metrics.undefined_saturated("nobody knows", (0.05, 0.3))
    assert result.undefined == {"au_spro@0.05": "nobody knows", "au_spro@0.3": "nobody knows"}
    assert all(math.isnan(value) for value in result.named().values())
    assert result.regions.rows() == []


def test_relative_saturation_is_truncated():
    assert metrics.saturation_pixels(199, 0.5, relative=True) == 99
    assert metrics.saturation_pixels(3, 0.1, relative=True) == 0
    assert metrics.saturation_pixels(3, 400, relative=False) == 400


def test_loco_halves_have_their_own_normals():
    rng = np.random.default_rng(1)
    maps = rng.random((4, 6, 6))
    kinds = ["normal", "structural", "logical", "logical"]
    defects = [[] if kind == "normal" else [Defect(rng.random((6, 6)) < 0.3, 4)] for kind in kinds]
    result = metrics.evaluate_loco(maps, defects, kinds, (0.05, 1.0))
    for half, keep in (("structural", [0, 1]), ("logical", [0, 2, 3])):
        alone = metrics.evaluate_saturated(maps[keep], [defects[i] for i in keep], (0.05, 1.0))
        assert getattr(result, half).au_spro == alone.au_spro
    assert result.au_spro[0.05] == (result.structural.au_spro[0.05] + result.logical.au_spro[0.05]) / 2
    assert result.named()["logical/au_spro@0.05"] == result.logical.au_spro[0.05]


def test_image_scores_of_loco_halves_share_the_normal_images():
    kinds = ["normal", "structural", "logical", "normal"]
    result = metrics.evaluate_loco_images([0.2, 0.3, 0.1, 0.0], kinds)
    assert (result.structural.au_roc, result.logical.au_roc) == (1.0, 0.5)
    assert result.named()["image_au_roc"] == 0.75
    assert result.named()["logical/image_au_roc"] == 0.5
    alone = metrics.evaluate_loco_images([0.2, 0.3], kinds[:2])
    assert alone.undefined["logical/image_au_roc"] == "no image is anomalous"
    assert alone.undefined["image_au_roc"] == "logical: no image is anomalous"
    assert math.isnan(alone.named()["image_au_roc"])


def test_a_missing_half_leaves_the_mean_undefined():
    maps = np.random.default_rng(1).random((2, 4, 4))
    result = metrics.evaluate_loco(maps, [[], [Defect(np.eye(4), 2)]], ["normal", "logical"])
    assert math.isnan(result.au_spro[0.05])
    assert not math.isnan(result.logical.au_spro[0.05])
    assert set(result.undefined) == {"au_spro@0.05", "structural/au_spro@0.05"}


def test_loco_names_the_image_by_its_place_in_the_whole_set():
    maps = np.zeros((3, 2, 2), np.float32)
    maps[2] = np.nan
    defects = [[], [Defect(np.eye(2), 1)], [Defect(np.eye(2), 1)]]
    with pytest.raises(metrics.MetricError, match=r"image 2 \(c\)"):
        metrics.evaluate_loco(maps, defects, ["normal", "structural", "logical"], names=["a", "b", "c"])
    with pytest.raises(metrics.MetricError, match="not 'good'"):
        metrics.evaluate_loco(maps, defects, ["good", "structural", "logical"])
