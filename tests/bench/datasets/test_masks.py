"""What the values of masks mean is decided over all masks of a scenario."""

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw, ImageFilter

from bench.datasets.cache import Cache
from bench.datasets.mask_values import listed_values, read_levels, values_of
from bench.datasets.masks import GroundTruth, read_ground_truth
from bench.datasets.pixels import image_size
from bench.datasets.scenario import Scenario, TestImage
from bench.datasets.selection import select_scenarios
from bench.errors import DataError
from results.record import Collection

SIZE = (20, 30)
MARKED = np.zeros(SIZE, dtype=bool)
MARKED[5:9, 10:20] = True
PARTS = Collection(name="parts", title="Parts")


def saved(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))).save(path, **options)
    return path


def scenario_of(folder, *masks, **fields):
    """A scenario of anomalous images with these masks, arrays or pictures."""
    image = saved(folder / "test/scratch/000.png", np.zeros(SIZE, np.uint8))
    test = tuple(
        TestImage(f"test/scratch/{index:03}", image, "scratch", True, (saved(_mask_path(folder, index), mask),))
        for index, mask in enumerate(masks)
    )
    return Scenario(PARTS, "bolt", train=(), validation=(), test=test, folder=folder, **fields)


def _mask_path(folder, index):
    return folder / f"ground_truth/scratch/{index:03}_mask.png"


def truth_of(scenario):
    return read_ground_truth(scenario, [SIZE] * len(scenario.test))


def gray(value, kind=np.uint8):
    return np.where(MARKED, value, 0).astype(kind)


def palette(*colours):
    """Index 0 is black, and marked pixels have index 1."""
    picture = Image.fromarray(gray(1), mode="P")
    picture.putpalette([0, 0, 0, *(channel for colour in colours for channel in colour)])
    return picture


def rgb(colour):
    return np.where(MARKED[..., None], np.array(colour, np.uint8), np.uint8(0))


def rgba(colour, hidden=(0, 0, 0)):
    """Opaque where marked, and elsewhere transparent over some colour."""
    pixels = np.where(MARKED[..., None], np.array([*colour, 255]), np.array([*hidden, 0]))
    return pixels.astype(np.uint8)


@pytest.mark.parametrize(
    "mask",
    [
        MARKED,
        *(gray(value) for value in (1, 2, 64, 200, 255)),
        *(gray(value, np.uint16) for value in (1, 255, 4095, 65535)),
        palette((255, 255, 255)),
        palette((128, 0, 0)),
        rgb((255, 255, 255)),
        rgb((255, 0, 0)),
        rgba((255, 255, 255)),
        rgba((255, 255, 255), hidden=(255, 255, 255)),
        rgba((255, 0, 0), hidden=(0, 200, 0)),
        np.dstack([gray(255), np.full(SIZE, 255, np.uint8)]),
    ],
    ids=lambda mask: getattr(mask, "mode", None) or f"{mask.dtype}-{mask.ndim}-{mask.max()}",
)
def test_zero_and_one_other_value(tmp_path, mask):
    found = truth_of(scenario_of(tmp_path, mask)).mask(0)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, MARKED)


def drawn(scale=8):
    """A soft disc, as an annotation tool draws it."""
    picture = Image.new("L", (SIZE[1] * scale, SIZE[0] * scale))
    ImageDraw.Draw(picture).ellipse((6 * scale, 4 * scale, 22 * scale, 16 * scale), fill=255)
    return picture.resize((SIZE[1], SIZE[0]), Image.Resampling.BOX)


def through_jpeg(mask, quality):
    buffer = io.BytesIO()
    mask.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "change", [lambda mask: mask, *(lambda mask, quality=q: through_jpeg(mask, quality) for q in (50, 75, 95))]
)
def test_gray_from_black_to_white_is_cut_at_half(tmp_path, change, mode):
    mask = change(drawn().convert(mode))
    np.testing.assert_array_equal(truth_of(scenario_of(tmp_path, mask)).mask(0), np.asarray(mask.convert("L")) >= 128)


def test_a_blurred_mask_is_cut_at_half(tmp_path):
    mask = drawn().filter(ImageFilter.GaussianBlur(2))
    mask = mask.point(lambda value: min(255, int(value * 255 / mask.getextrema()[1])))
    np.testing.assert_array_equal(truth_of(scenario_of(tmp_path, mask)).mask(0), np.asarray(mask) >= 128)


def test_soft_16_bit_masks_are_cut_at_half(tmp_path):
    mask = np.asarray(drawn()).astype(np.uint16) * 257
    np.testing.assert_array_equal(truth_of(scenario_of(tmp_path, mask)).mask(0), mask >= 32768)


def steps(*values):
    """Stripes of 4 pixels of each value, over 0."""
    mask = np.zeros(SIZE, np.uint8)
    for place, value in enumerate(values):
        mask[4:16, 4 + 4 * place : 8 + 4 * place] = value
    return mask


LABELS = [
    ((steps(1), steps(2), steps(2, 3)), "002_mask.png has 2, 3, all masks together 1, 2, 3"),
    ((steps(85, 170, 255),), "000_mask.png has 85, 170, white"),
    ((steps(1, 255),), "000_mask.png has 1, white"),
    ((steps(255), steps(1)), "001_mask.png has 1, all masks together 1, white"),
    ((rgb((255, 0, 0)), rgb((0, 255, 0))), "#ff0000, all masks together #00ff00, #ff0000"),
    ((palette((76, 76, 76)), palette((255, 0, 0))), "#ff0000"),  # of one brightness
]


@pytest.mark.parametrize(("masks", "message"), LABELS)
def test_several_labels_are_refused_unless_a_rule_says_what_they_mean(tmp_path, masks, message):
    scenario = scenario_of(tmp_path, *masks)
    with pytest.raises(DataError, match="several labels, and nothing says which mark a defect") as caught:
        truth_of(scenario)
    assert message in str(caught.value).replace(str(tmp_path), "")
    assert "--masks nonzero" in str(caught.value)
    every, half = replace(scenario, mask_rule="nonzero"), replace(scenario, mask_rule="half")
    brightest = [_brightest(mask) for mask in masks]
    for index, pixels in enumerate(brightest):
        np.testing.assert_array_equal(truth_of(every).mask(index), pixels > 0)
    assert truth_of(every).notes == ("every value but 0 of a mask marks a defect",)
    if max(pixels.max() for pixels in brightest) < 128:
        with pytest.raises(DataError, match=r"no mask .* reaches half the range.*000_mask\.png has 1: pass --masks"):
            truth_of(half)
        return
    for index, pixels in enumerate(brightest):
        np.testing.assert_array_equal(truth_of(half).mask(index), pixels >= 128)


def _brightest(mask):
    pixels = np.asarray(mask.convert("RGB") if isinstance(mask, Image.Image) else mask)
    return pixels if pixels.ndim == 2 else pixels.max(2)


def thin(value):
    """A scratch of two pixels' width has no pixel that only its own value surrounds."""
    mask = steps()
    mask[12:14, 2:20] = value
    return mask


def test_labels_too_thin_for_a_plain_pixel_are_labels(tmp_path):
    both = thin(170)
    both[2:4, 2:20] = 255
    with pytest.raises(DataError, match=r"001_mask\.png has 170, white"):
        truth_of(scenario_of(tmp_path, thin(255), both))


@pytest.mark.parametrize("quality", range(5, 100, 5))
def test_jpeg_of_few_values_is_gray(tmp_path, quality):
    masks = [np.zeros((80, 120), np.uint8) for _ in range(3)]
    for place, mask in enumerate(masks[1:]):
        mask[16 + 3 * place : 40, 40:80] = 255
    scenario = scenario_of(tmp_path, *masks)
    for image, mask in zip(scenario.test, masks, strict=True):
        saved(image.masks[0], mask, format="JPEG", quality=quality)
    truth = read_ground_truth(scenario, [mask.shape for mask in masks])
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(truth.mask(index), mask > 0)


def test_what_cannot_be_read_whole_is_refused(tmp_path):
    scenario = scenario_of(tmp_path, gray(255))
    (path,) = scenario.test[0].masks
    saved(path, gray(0), format="TIFF", save_all=True, append_images=[Image.fromarray(gray(255))])
    with pytest.raises(DataError, match=r"cannot read .*000_mask\.png: it has several pages"):
        truth_of(scenario)
    deep = np.where(MARKED[..., None], 255, np.zeros(3)).astype(np.uint16)  # of which Pillow leaves 0
    tifffile.imwrite(path, deep, photometric="rgb")
    with pytest.raises(DataError, match=r"cannot read .*000_mask\.png: of 16 bits per colour channel only 8"):
        truth_of(scenario)


def test_transparency_hides_and_marks_only_where_it_differs(tmp_path):
    evenly = np.dstack([np.zeros((*SIZE, 3), np.uint8), np.full(SIZE, 128, np.uint8)])
    scenario = scenario_of(tmp_path, steps(64), evenly, rgba((255, 255, 255)))
    hidden = Image.fromarray(steps(64, 255))
    saved(scenario.test[0].masks[0], hidden, transparency=64)
    truth = truth_of(scenario)
    np.testing.assert_array_equal(truth.mask(0), steps(64, 255) == 255)
    assert not truth.mask(1).any()


def test_a_photograph_in_the_place_of_a_mask_fills_no_memory(tmp_path):
    photograph = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    values = values_of(read_levels(Image.open(saved(tmp_path / "0.png", photograph))))
    assert values.are_labels
    assert len(values.marking) <= 256
    assert listed_values(values.marking).endswith("and more")


def test_what_became_of_masks_is_counted(tmp_path):
    soft = scenario_of(tmp_path, drawn(), drawn(), gray(255))
    exif = Image.Exif()
    exif[0x0112] = 3
    saved(soft.test[2].masks[0], gray(255), exif=exif)
    assert truth_of(soft).notes == (
        "2 masks with values between black and white, cut at half the range",
        "1 mask turned as EXIF says",
    )
    assert truth_of(soft).warning is None


def test_black_and_white_exchanged_are_noticed(tmp_path):
    exchanged = [np.uint8(255) - gray(255), np.uint8(255) - thin(255), gray(0)]
    warning = truth_of(scenario_of(tmp_path, *exchanged)).warning
    assert warning == "every mask marks more than 50% of its image: are black and white exchanged?"
    assert truth_of(scenario_of(tmp_path, *exchanged, gray(255))).warning is None


def test_masks_of_several_depths_agree_on_white(tmp_path):
    truth = truth_of(scenario_of(tmp_path, gray(255), gray(65535, np.uint16), MARKED))
    assert [truth.mask(index).sum() for index in range(3)] == [40, 40, 40]


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_tiff_mask_is_turned_and_noted(tmp_path, orientation):
    square = np.pad(MARKED, ((0, 10), (0, 0)))
    scenario = scenario_of(tmp_path, gray(255))
    (image,) = scenario.test
    mask = tmp_path / "ground_truth/scratch/000_mask.tif"
    tifffile.imwrite(mask, np.where(square, 255, 0).astype(np.uint8), extratags=[(274, "H", 1, orientation, True)])
    truth = read_ground_truth(replace(scenario, test=(replace(image, masks=(mask,)),)), [square.shape])
    np.testing.assert_array_equal(truth.mask(0), np.rot90(square, {3: 2, 6: -1}[orientation]))
    assert truth.notes == ("1 mask turned as EXIF says",)


def test_channels_besides_the_colours_are_refused(tmp_path):
    scenario = scenario_of(tmp_path, gray(255))
    (image,) = scenario.test
    mask = tmp_path / "ground_truth/scratch/000_mask.tif"
    pixels = np.dstack([gray(0), gray(255)])
    tifffile.imwrite(mask, pixels, photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"])
    with pytest.raises(DataError, match=r"000_mask\.tif: it has channels besides its colours"):
        truth_of(replace(scenario, test=(replace(image, masks=(mask,)),)))


def test_a_mask_that_marks_nothing_is_noted(tmp_path):
    assert truth_of(scenario_of(tmp_path, gray(255), gray(0))).notes == (
        "1 mask empty, although the image is anomalous",
    )


def test_an_empty_mask_is_a_mask_and_a_normal_image_has_none(tmp_path):
    scenario = scenario_of(tmp_path, gray(0))
    normal = TestImage("test/good/000", scenario.test[0].path, "good", False)
    truth = truth_of(replace(scenario, test=(*scenario.test, normal)))
    assert not truth.mask(0).any()
    assert truth.mask(1) is None


def test_a_mask_is_turned_as_exif_says(tmp_path):
    lying = Image.fromarray(np.rot90(gray(255)).copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    scenario = scenario_of(tmp_path, gray(255))
    lying.save(scenario.test[0].masks[0], exif=exif)
    np.testing.assert_array_equal(truth_of(scenario).mask(0), MARKED)


def test_a_mask_of_another_size_is_refused(tmp_path):
    scenario = scenario_of(tmp_path, np.zeros((30, 20), np.uint8))
    with pytest.raises(DataError, match=r"000_mask\.png has 30×20 pixels but image .*000\.png has 20×30"):
        truth_of(scenario)


def test_missing_and_damaged_masks_are_named(tmp_path):
    scenario = scenario_of(tmp_path, gray(255))
    (path,) = scenario.test[0].masks
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    with pytest.raises(DataError, match=r"cannot read .*000_mask\.png"):
        truth_of(scenario)
    path.unlink()
    with pytest.raises(DataError, match=r"000_mask\.png: no such file"):
        truth_of(scenario)
    without = TestImage("test/scratch/001", scenario.test[0].path, "scratch", True)
    with pytest.raises(DataError, match=r"no ground truth .* expected ground_truth/scratch/000_mask\.png"):
        truth_of(replace(scenario, test=(without, *scenario.test)))


def test_without_any_mask_there_is_nothing_to_read(tmp_path):
    scenario = scenario_of(tmp_path, gray(255))
    without = tuple(replace(image, masks=()) for image in scenario.test)
    assert isinstance(truth_of(replace(scenario, test=without)), GroundTruth)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mvtec_ad/pill", "surface/magnetic_tile"])
def test_real_masks_keep_their_meaning(tmp_path, name):
    if "BENCH_DATA" not in os.environ:
        pytest.skip("needs real images: set BENCH_DATA")
    (scenario,) = select_scenarios(name, Path(os.environ["BENCH_DATA"]), Cache(tmp_path))
    truth = read_ground_truth(scenario, [image_size(image.path) for image in scenario.test])
    for index, image in enumerate(scenario.test):
        if image.anomalous:
            np.testing.assert_array_equal(truth.mask(index), np.asarray(Image.open(image.masks[0]).convert("L")) >= 128)
