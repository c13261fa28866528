import math

import numpy as np
import pytest
from brute_force import LIMITS, SCORES, pixel_values, random_case
from hypothesis import given, settings
from hypothesis import strategies as st

import metrics
from metrics import engine

cases = st.builds(
    random_case,
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(sorted(SCORES)),
    images=st.integers(1, 5),
)


def assert_same(found, expected, tolerance=1e-9):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=tolerance, nan_ok=True), name


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(cases, st.floats(0.001, 1.0))
def test_equals_the_definition(case, limit):
    maps, masks = case
    limits = (*LIMITS, limit)
    result = metrics.evaluate_pixels(maps, masks, limits, threads=1)
    if result.undefined:
        assert result.defect_pixels == 0 or result.normal_pixels == 0
        assert set(result.undefined) == set(result.named())
        assert all(math.isnan(value) for value in result.named().values())
    else:
        assert_same(result.named(), pixel_values(maps, masks, sorted({*limits}, key=limits.index)))


@settings(max_examples=25, deadline=None)
@given(cases)
def test_blocks_smaller_than_an_image_change_nothing(case):
    maps, masks = case
    expected = metrics.evaluate_pixels(maps, masks).named()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "SMALLEST_BLOCK", 1)
        patch.setattr(engine, "LARGEST_BLOCK", 5)
        assert_same(metrics.evaluate_pixels(maps, masks, threads=1).named(), expected, 0)


@settings(max_examples=25, deadline=None)
@given(cases, st.randoms())
def test_the_order_of_images_does_not_matter(case, random):
    maps, masks = case
    order = list(range(len(maps)))
    random.shuffle(order)
    shuffled = metrics.evaluate_pixels([maps[i] for i in order], [masks[i] for i in order])
    assert_same(shuffled.named(), metrics.evaluate_pixels(maps, masks).named(), 1e-12)


@pytest.mark.parametrize("transform", [np.exp, np.arctan, lambda x: x**3, lambda x: 5 * x - 3])
def test_only_the_order_of_scores_matters(transform):
    maps, masks = random_case(4, "smooth", 5)
    maps = [m.astype(np.float64) for m in maps]
    transformed = metrics.evaluate_pixels([transform(m) for m in maps], masks)
    assert_same(transformed.named(), metrics.evaluate_pixels(maps, masks).named(), 0)


def test_maps_of_different_float_types_are_compared_exactly():
    fine = np.array([[1.0 + 1e-12, 1.0], [0.5, 0.1]])
    coarse = np.array([[1.0, 0.5], [0.25, 0.0]], np.float32)
    half = coarse.astype(np.float16)
    mask = np.array([[1, 0], [0, 1]])
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        maps = [(fine, coarse, half)[i] for i in order]
        masks = [(None, mask, None)[i] for i in order]
        assert_same(metrics.evaluate_pixels(maps, masks, LIMITS).named(), pixel_values(maps, masks, LIMITS))


def test_threads_do_not_change_the_result():
    rng = np.random.default_rng(0)
    maps = rng.random((20, 50, 60), dtype=np.float32)
    masks = rng.random((20, 50, 60)) < 0.02
    one = metrics.evaluate_pixels(maps, masks, threads=1)
    many = metrics.evaluate_pixels(maps, masks, threads=7)
    assert one.named() == many.named()


def test_regions_are_eight_connected_and_numbered_in_raster_order():
    mask = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 1]])
    scores = np.arange(25, dtype=np.float32).reshape(5, 5)
    regions = metrics.evaluate_pixels([scores], [mask]).regions
    assert regions.area.tolist() == [5, 2, 1]
    assert regions.image.tolist() == [0, 0, 0]


def test_overlap_at_the_limit():
    scores = np.array([[9, 8, 1, 0, 7, 6, 5, 4, 3, 2]], np.float32)
    mask = np.array([[1, 1, 1, 1, 0, 0, 0, 0, 0, 0]])
    regions = metrics.evaluate_pixels([scores], [mask], (0.5, 1.0)).regions
    assert regions.overlap[0.5].tolist() == [0.5]
    assert regions.overlap[1.0].tolist() == [1.0]


def test_more_pixels_than_float32_can_count():
    # 2^24 + 1 normal pixels above every defect pixel: a float32 counter would stop at 2^24.
    size = 4097
    scores = np.ones((size, size), np.float32)
    mask = np.zeros((size, size), np.uint8)
    mask[0, :2] = 1
    scores[0, 0] = 0.5
    scores[0, 1] = 2
    result = metrics.evaluate_pixels([scores], [mask], (1.0,))
    assert result.normal_pixels == size * size - 2
    assert result.au_roc[1.0] == 0.5
    assert result.average_precision == pytest.approx((1 + 2 / (size * size)) / 2, abs=1e-15)


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ([None, None], "no image is anomalous"),
        ([np.zeros((2, 2)), None], "no mask marks a defect pixel"),
        ([np.ones((2, 2)), np.ones((2, 2))], "every pixel is a defect pixel"),
    ],
)
def test_undefined_is_nan_with_a_reason(masks, reason):
    result = metrics.evaluate_pixels(np.zeros((2, 2, 2), np.float32), masks)
    assert all(math.isnan(value) for value in result.named().values())
    assert set(result.undefined.values()) == {reason}
    assert set(result.undefined) == set(result.named())


def test_an_empty_mask_is_reported():
    result = metrics.evaluate_pixels(np.random.default_rng(0).random((3, 2, 2)), [None, np.zeros((2, 2)), np.eye(2)])
    assert result.empty_masks == (1,)
    assert not result.undefined


NANS = [np.uint32(bits).view(np.float32) for bits in (0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF)]


@pytest.mark.parametrize("bad", [*NANS, np.inf, -np.inf])
@pytest.mark.parametrize("anomalous", [True, False])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_score_that_is_not_finite_names_the_image(bad, anomalous, threads):
    maps = np.zeros((9, 4, 5), np.float32)
    maps[6, 2, 3] = bad
    maps[8, 0, 0] = bad
    masks = [None] * 9
    masks[0] = np.eye(4, 5)
    if anomalous:
        masks[6] = np.eye(4, 5)
    names = [f"scratch/{i:03}" for i in range(9)]
    with pytest.raises(metrics.MetricError, match=rf"image 6 \(scratch/006\).*row 2, column 3 is {bad}"):
        metrics.evaluate_pixels(maps, masks, names=names, threads=threads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": [None]}, "2 maps, but 1 masks"),
        ({"masks": [None, np.eye(3)]}, r"image 1: the map has shape \(2, 2\), its mask \(3, 3\)"),
        ({"masks": [None, np.zeros((3, 3))]}, r"image 1: the map has shape \(2, 2\), its mask \(3, 3\)"),
        ({"masks": [None, np.ones(4)]}, r"image 1: a mask must be a \(height, width\) array"),
        ({"maps": np.zeros((2, 2, 2), np.int64)}, "image .*float16, float32 or float64, is int64"),
        ({"maps": np.zeros((2, 2), np.float32)}, "image .*non-empty"),
        ({"fpr_limits": (0.0,)}, "limit must lie in"),
        ({"fpr_limits": (1.5,)}, "limit must lie in"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"names": ["only one"]}, "2 images, but 1 names"),
    ],
)
def test_unusable_input(change, message):
    arguments = {"maps": np.zeros((2, 2, 2), np.float32), "masks": [None, np.eye(2)]} | change
    with pytest.raises(metrics.MetricError, match=message):
        metrics.evaluate_pixels(**arguments)


def test_a_failure_to_read_keeps_its_own_error():
    class Broken(list):
        def __getitem__(self, index):
            raise OSError("cannot read")

    with pytest.raises(OSError, match="cannot read"):
        metrics.evaluate_pixels(Broken([0, 0]), [None, np.eye(2)])


def test_a_limit_that_is_a_whole_number_of_pixels_is_reached_in_spite_of_rounding():
    """0.29 of 100 normal pixels are 29, although 0.29 * 100 < 29."""
    maps = np.arange(102, dtype=np.float32)[None, ::-1]  # two defect pixels after 29 and after 100 false positives
    mask = np.zeros((1, 102))
    mask[0, [29, 30, 101]] = 1
    mask[0, 29] = 0
    result = metrics.evaluate_pixels([maps], [mask], (0.29,))
    assert result.regions.overlap[0.29].tolist() == [0.0, 0.0]
    mask[0, 30], mask[0, 29] = 0, 1
    assert metrics.evaluate_pixels([maps], [mask], (0.29,)).regions.overlap[0.29].tolist() == [1.0, 0.0]


def test_no_limit_and_no_sequence():
    with pytest.raises(metrics.MetricError, match="no FPR limit given"):
        metrics.evaluate_pixels([np.zeros((2, 2))], [None], ())
    with pytest.raises(metrics.MetricError, match="give a sequence, not generator"):
        metrics.evaluate_pixels((m for m in [np.zeros((2, 2))]), [None])
