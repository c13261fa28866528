import contextlib
import io
import math
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import metrics
from metrics import DeclaredRate, MeanPlusDeviations, MetricError, NormalImages

FLOATS = {
    np.float32: st.floats(-(2.0**100), 2.0**100, width=32),
    np.float64: st.floats(-1e200, 1e200),
}


@st.composite
def stacks(draw):
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    levels = draw(st.booleans())
    elements = st.integers(-3, 3).map(float) if levels else FLOATS[dtype]
    return draw(
        arrays.arrays(dtype, st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5)), elements=elements)
    )


@settings(deadline=None, max_examples=50)
@given(stacks(), st.integers(0, 200))
def test_the_threshold_that_so_many_pixels_exceed_is_exact(maps, allowed):
    allowed %= maps.size
    threshold = NormalImages(np.zeros(len(maps)), maps, threads=1).pixel_exceeded_by(allowed)
    assert threshold == np.sort(maps, axis=None)[maps.size - 1 - allowed]
    assert np.sum(maps > threshold) <= allowed
    lower = maps[maps < threshold]
    assert lower.size == 0 or np.sum(maps > lower.max()) > allowed


@pytest.mark.slow
@settings(deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 5)),
        elements=st.floats(-1000000, 1000000, width=32),
    )
)
def test_mean_and_deviations_are_those_of_numpy(maps):
    value = MeanPlusDeviations("pixel", 3).choose(NormalImages(np.zeros(len(maps)), maps, threads=2))
    exact = maps.astype(np.float64)
    assert value == pytest.approx(np.mean(exact) + 3 * np.std(exact), rel=1e-12, abs=1e-9)
    scores = maps.max((1, 2)).astype(np.float64)
    assert MeanPlusDeviations("image", 2).choose(NormalImages(scores)) == np.mean(scores) + 2 * np.std(scores)


def test_a_small_spread_far_from_zero_is_not_cancelled():
    maps = np.float32(4096) + np.random.default_rng(0).integers(0, 3, (5, 40, 30)).astype(np.float32) / 1024
    _, deviation = NormalImages(np.zeros(5), maps).pixel_mean_and_deviation()
    assert deviation == pytest.approx(np.std(maps.astype(np.float64)), rel=1e-9)


@pytest.mark.parametrize("rate", [0.05, 0.07, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("count", [19, 20, 48, 99, 100])
def test_the_rate_of_images_is_the_order_statistic_of_conformal_prediction(rate, count):
    scores = np.random.default_rng(1).permutation(np.arange(1, count + 1)).astype(float)
    rank = math.ceil((count + 1) * (1 - rate) - 1e-9)
    assert DeclaredRate("image", rate).choose(NormalImages(scores)) == rank
    maps = np.broadcast_to(scores[:, None, None], (count, 2, 3)).copy()
    maps[:, 1:, :] = -1e6  # only the highest pixel of an image counts
    assert DeclaredRate("pixel", rate).choose(NormalImages(np.zeros(count), maps)) == rank


@pytest.mark.slow
def test_a_declared_rate_is_kept_on_average_over_new_images():
    rng, count, rate = np.random.default_rng(2), 24, 0.05
    pixels, images, plain = [], [], []
    for _ in range(200):
        level = rng.normal(size=(count + 1, 1, 1))  # images differ as a whole: pixels are not independent
        maps = (level + 0.3 * rng.normal(size=(count + 1, 6, 8))).astype(np.float32)
        normal, new = NormalImages(maps[:-1].max((1, 2)), maps[:-1], threads=1), maps[-1]
        pixels.append(np.mean(new > DeclaredRate("pixel", rate, "pixels").choose(normal)))
        images.append(new.max() > DeclaredRate("pixel", rate).choose(normal))
        plain.append(np.mean(new > np.quantile(maps[:-1], 1 - rate)))
    error = 3 * np.std(pixels) / np.sqrt(len(pixels))
    assert np.mean(pixels) <= rate + error
    assert np.mean(images) <= rate + 3 * np.sqrt(rate * (1 - rate) / len(images))
    assert np.mean(plain) > np.mean(pixels)  # what the correction is for


@pytest.mark.parametrize(("rate", "fewest"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1)])
def test_too_few_images_support_no_rate(rate, fewest):
    rule = DeclaredRate("image", rate)
    assert rule.undefined_reason(fewest) == ""
    assert f"at least {fewest} are needed" in rule.undefined_reason(fewest - 1)
    assert rule.choose(NormalImages(np.arange(fewest))) == fewest - 1
    with pytest.raises(MetricError, match=r"no threshold can be chosen|no normal image"):
        rule.choose(NormalImages(np.arange(fewest - 1)))


def test_names_say_what_a_rule_is():
    rules = [MeanPlusDeviations("pixel"), MeanPlusDeviations("image", 2.5), DeclaredRate("image")]
    rules += [DeclaredRate("pixel", 0.01, "pixels"), DeclaredRate("pixel", 0.05)]
    assert [rule.name for rule in rules] == ["mean+3sd", "mean+2.5sd", "fpr0.05", "fpr0.01", "image_fpr0.05"]
    assert [rule.declared for rule in rules] == [None, None, 0.05, 0.01, 0.05]


def test_bad_input_is_named():
    maps = np.zeros((3, 2, 2), np.float32)
    for value in (math.nan, math.inf):
        maps[1, 0, 1] = value
        normal = NormalImages(np.zeros(3), maps, names=["a", "b", "c"])
        with pytest.raises(MetricError, match=re.escape(f"image 1 (b): the score at row 0, column 1 is {value}")):
            MeanPlusDeviations("pixel").choose(normal)
    with pytest.raises(MetricError, match="no normal image"):
        NormalImages([])
    with pytest.raises(MetricError, match="3 maps, but 2 scores"):
        NormalImages([1, 2], maps)
    with pytest.raises(MetricError, match="normal image 1: the image score is inf"):
        NormalImages([1, math.inf])
    with pytest.raises(MetricError, match="have no anomaly maps"):
        MeanPlusDeviations("pixel").choose(NormalImages([1.0]))
    for rate in (0, 1, -0.1):
        with pytest.raises(MetricError, match=r"must lie in \(0, 1\)"):
            DeclaredRate("image", rate)
    with pytest.raises(MetricError, match="a rate of images, not of pixels"):
        DeclaredRate("image", 0.05, "pixels")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images():
    network = np.random.default_rng(0).random((64, 16, 16), dtype=np.float32)

    def peak(count):
        tracemalloc.start()
        normal = NormalImages(np.zeros(count), metrics.UpsampledMaps(network[:count], [(256, 256)] * count), threads=1)
        DeclaredRate("pixel", 0.5, "pixels").choose(normal)
        MeanPlusDeviations("pixel").choose(normal)
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # compiles
    few, many = peak(2), peak(16)
    assert many - few < 2 * 256 * 256 * 4  # of 14 maps more


def test_the_example_in_the_documentation_prints_what_the_page_says():
    text = (Path(__file__).parents[2] / "docs" / "thresholds.md").read_text()
    code, printed = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", text, re.DOTALL).groups()
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/thresholds.md", "exec"), {})
    assert out.getvalue() == printed
