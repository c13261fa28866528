"""Pixels are what the viewer of an image sees."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageOps

from bench.datasets.bit_depth import bit_depth
from bench.datasets.cache import Cache
from bench.datasets.data_notes import take_notes
from bench.datasets.images import decode_images
from bench.datasets.pixels import MAX_PIXELS_VARIABLE, image_size, is_stored_deep, read_image
from bench.datasets.scenario import Scenario, TestImage
from bench.errors import DataError, UsageError
from results.record import Collection

SIZE = (24, 36)


def noise(*shape, low=0, high=256, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def saved(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


def scenario_of(folder, train, test=(), *, cached=False):
    return Scenario(
        Collection(name="parts", title="Parts"),
        "bolt",
        train=tuple(train),
        validation=(),
        test=tuple(TestImage(f"test/good/{path.stem}", path, "good", False) for path in test),
        folder=folder,
        cache=Cache(folder / "cache", enabled=cached),
    )


def decoded(path, size, bits=None):
    return decode_images([path], size, Cache(path.parent, enabled=False), bits=bits)


# --- orientation ---


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_the_orientation_is_applied(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", noise(*SIZE, 3), exif=exif, **options)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    assert image_size(path) == (upright.height, upright.width)
    found = decoded(path, (upright.height, upright.width))
    assert found.sizes == ((upright.height, upright.width),)
    np.testing.assert_array_equal(found.pixels[0].permute(1, 2, 0).numpy(), np.asarray(upright))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_gray_tiff_files_without_compression_are_turned_too(tmp_path, kind, orientation):
    pixels = noise(*SIZE, high=256, dtype=kind)
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(saved(tmp_path / "right.png", pixels, exif=exif)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, extratags=[(274, "H", 1, orientation, True)])
    assert image_size(path) == upright.shape
    found = decoded(path, upright.shape, bits=8)
    np.testing.assert_array_equal(found.pixels[0, 0].numpy(), upright)
    expected = () if orientation == 1 else ("1 training image turned as EXIF says",)
    assert take_notes(scenario_of(tmp_path, [path])).notes == expected


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunk(path, kind, body, *, after_pixels=False):
    """Put a chunk behind the header of a PNG file, or behind its pixels."""
    content = path.read_bytes()
    place = len(content) - 12 if after_pixels else 33
    path.write_bytes(content[:place] + chunk(kind, body) + content[place:])
    return path


def png(path, size, bits, colour_type, rows):
    """Write a PNG file of a kind that Pillow does not write, from the bytes of its rows."""
    header = struct.pack(">IIBBBBB", size[1], size[0], bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3)], ids=["gray", "rgb"])
def test_an_orientation_behind_the_pixels_of_a_png_file_counts(tmp_path, shape):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = noise(*shape)
    path = with_chunk(saved(tmp_path / "a.png", pixels), b"eXIf", exif.tobytes()[6:], after_pixels=True)
    assert image_size(path) == (SIZE[1], SIZE[0])
    found = decoded(path, (SIZE[1], SIZE[0]))
    assert found.sizes == ((SIZE[1], SIZE[0]),)
    np.testing.assert_array_equal(
        found.pixels[0, 0].numpy(), np.rot90(pixels, -1).reshape(SIZE[1], SIZE[0], -1)[..., 0]
    )
    assert take_notes(scenario_of(tmp_path, [path])).notes == ("1 training image turned as EXIF says",)


TURNED_BY_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize(
    ("pixels", "options", "match"),
    [
        (noise(*SIZE).astype(np.int8), {}, "its values have signs or fractions"),
        (noise(*SIZE).astype(np.int16), {}, "its values have signs or fractions"),
        (noise(*SIZE, dtype=np.uint32), {}, "it is read as integers of 32 bits: save it as PNG or TIFF"),
        (noise(*SIZE).astype(np.float16), {}, "pixels of a kind that Pillow does not know"),
        (noise(*SIZE, dtype=np.uint16), {"photometric": "miniswhite"}, "low values are white, in more than 8 bits"),
        (
            noise(3, *SIZE, dtype=np.uint16),
            {"photometric": "rgb", "planarconfig": "separate"},
            "its channels lie apart",
        ),
        (noise(3, *SIZE), {"photometric": "cielab", "planarconfig": "separate"}, "its channels lie apart"),
        (noise(*SIZE, 2), {"planarconfig": "contig", "extrasamples": ["assocalpha"]}, "multiplied with their transp"),
        (noise(*SIZE), {"extratags": [(700, "B", len(TURNED_BY_XMP), TURNED_BY_XMP, True)]}, "turned by its XMP entry"),
    ],
)
def test_tiff_files_that_would_be_misread_are_refused(tmp_path, pixels, options, match):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **options})
    with pytest.raises(DataError, match=rf"a\.tif: .*{match}"):
        decoded(path, SIZE)


def test_a_tiff_file_has_to_say_what_is_white(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(*SIZE), photometric="minisblack", metadata=None)
    content = path.read_bytes()
    assert content.count(struct.pack("<HHI", 262, 3, 1)) == 1
    path.write_bytes(content.replace(struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 263, 3, 1)))
    with pytest.raises(DataError, match=r"a\.tif: its tag PhotometricInterpretation is missing"):
        decoded(path, SIZE)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}])
def test_white_in_low_values_and_channels_apart_are_read_of_8_bits(tmp_path, options):
    pixels = noise(3, *SIZE)
    rgb = pixels if "planarconfig" in options else pixels.transpose(1, 2, 0)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb", **options)
    np.testing.assert_array_equal(decoded(tmp_path / "rgb.tif", SIZE).pixels[0].numpy(), pixels)
    tifffile.imwrite(tmp_path / "gray.tif", pixels[0], photometric="miniswhite", **options)
    np.testing.assert_array_equal(decoded(tmp_path / "gray.tif", SIZE).pixels[0, 0].numpy(), 255 - pixels[0])


def test_channels_besides_the_colours_are_noted(tmp_path):
    pixels = noise(*SIZE, 4)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unspecified"])
    assert take_notes(scenario_of(tmp_path, [tmp_path / "a.tif"])).notes == (
        "1 training image with channels besides the colours, taken without them",
    )
    found = decoded(tmp_path / "a.tif", SIZE).pixels[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, pixels[..., :3])


@pytest.mark.parametrize(("level", "count"), [(5, 1), (12, 0)])
def test_the_transparent_level_of_few_bits_is_found(tmp_path, level, count):
    path = png(tmp_path / "a.png", (1, 16), 4, 0, [bytes(17 * each for each in range(8))])  # each of 0 to 7 twice
    with_chunk(path, b"tRNS", struct.pack(">H", level))
    note = "1 training image with transparency, taken without it"
    assert take_notes(scenario_of(tmp_path, [path])).notes == (note,) * count


def test_an_unknown_orientation_is_none(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    path = saved(tmp_path / "a.jpg", noise(*SIZE), exif=exif)
    assert image_size(path) == SIZE


def test_what_was_done_to_images_is_noted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    train = [saved(tmp_path / f"train/{index}.png", noise(*SIZE, 3, seed=index), exif=exif) for index in range(2)]
    test = [saved(tmp_path / "test/0.png", noise(*SIZE, 4, seed=9))]
    assert take_notes(scenario_of(tmp_path, train, test)).notes == (
        "2 training images turned as EXIF says",
        "1 test image with transparency, taken without it",
    )


def test_only_what_is_transparent_is_noted(tmp_path):
    opaque = noise(*SIZE, 4)
    opaque[..., 3] = 255
    palette = Image.fromarray(noise(*SIZE, 3)).quantize(16)
    train = [saved(tmp_path / "train/0.png", opaque), saved(tmp_path / "train/1.png", palette, transparency=0)]
    assert take_notes(scenario_of(tmp_path, train)).notes == ("1 training image with transparency, taken without it",)
    deep = saved(tmp_path / "deep/0.png", np.full(SIZE, 65535, np.uint16), transparency=65535)
    other = saved(tmp_path / "deep/1.png", np.full(SIZE, 65535, np.uint16), transparency=7)
    assert take_notes(scenario_of(tmp_path, [deep, other])).notes == (
        "1 training image with transparency, taken without it",
    )


@pytest.mark.parametrize("suffix", ["png", "tif", "gif", "webp"])
def test_of_several_frames_the_first_is_taken_and_noted(tmp_path, suffix):
    frames = [Image.fromarray(noise(*SIZE, seed=seed)) for seed in range(3)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert take_notes(scenario_of(tmp_path, [path])).notes == (
        "1 training image with several frames, of which the first is taken",
    )
    np.testing.assert_array_equal(decoded(path, SIZE).pixels[0, 0].numpy(), np.asarray(frames[0]))


# --- bit depth ---


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_bits_in_use_are_those_of_the_training_images(tmp_path, bits, suffix):
    pixels = noise(*SIZE, high=2**bits, dtype=np.uint16)
    pixels[0, 0] = 2**bits - 1
    train = [saved(tmp_path / f"train/0.{suffix}", pixels), saved(tmp_path / f"train/1.{suffix}", pixels // 8)]
    brighter = np.full(SIZE, 65535, np.uint16)
    scenario = scenario_of(tmp_path, train, [saved(tmp_path / f"test/0.{suffix}", brighter)])
    assert bit_depth(scenario) == bits
    assert take_notes(scenario).bits == bits
    found = decoded(train[0], SIZE, bits).pixels[0, 0].numpy()
    np.testing.assert_array_equal(found, pixels >> (bits - 8))
    assert (decoded(scenario.test[0].path, SIZE, bits).pixels == 255).all()  # brighter than any of them is white


def test_images_of_8_bits_have_no_depth_of_their_own(tmp_path):
    assert bit_depth(scenario_of(tmp_path, [saved(tmp_path / "0.png", noise(*SIZE))])) is None
    assert bit_depth(scenario_of(tmp_path, [saved(tmp_path / "0.jpg", noise(*SIZE))])) is None


def test_without_training_images_test_images_are_asked(tmp_path):
    image = saved(tmp_path / "test/0.png", noise(*SIZE, high=1000, dtype=np.uint16))
    assert bit_depth(scenario_of(tmp_path, [], [image])) == 10


@pytest.mark.parametrize(("channels", "colour_type"), [(2, 4), (4, 6)], ids=["gray", "rgb"])
def test_an_opaque_channel_says_nothing_of_the_bits_in_use(tmp_path, channels, colour_type):
    pixels = noise(*SIZE, channels, high=4096, dtype=np.uint16)
    pixels[..., -1] = 65535
    path = png(tmp_path / "0.png", SIZE, 16, colour_type, [row.astype(">u2").tobytes() for row in pixels])
    with pytest.raises(DataError, match="use 12 of 16 bits per channel"):
        bit_depth(scenario_of(tmp_path, [path]))


def test_what_files_say_of_themselves_goes_first(tmp_path):
    dark = noise(*SIZE, high=200, dtype=np.uint16)
    png = with_chunk(saved(tmp_path / "train/0.png", dark), b"sBIT", bytes([12]))
    assert bit_depth(scenario_of(tmp_path, [png])) == 12
    tifffile.imwrite(tmp_path / "train/1.tif", dark, extratags=[(281, "H", 1, 4095, True)])
    assert bit_depth(scenario_of(tmp_path, [tmp_path / "train/1.tif"])) == 12
    other = with_chunk(saved(tmp_path / "train/2.png", dark), b"sBIT", bytes([10]))
    with pytest.raises(DataError, match="say that they use 10 and 12 bits per channel"):
        bit_depth(scenario_of(tmp_path, [png, other]))


def test_a_file_that_was_scaled_to_the_whole_range_uses_it(tmp_path):
    scaled = noise(*SIZE, high=4096, dtype=np.uint16) << 4
    path = with_chunk(saved(tmp_path / "0.png", scaled), b"sBIT", bytes([12]))
    assert bit_depth(scenario_of(tmp_path, [path])) == 16


def test_packed_samples_say_how_many_bits_they_have(tmp_path):
    pixels = noise(*SIZE, high=1000, dtype=np.uint16)  # as dark as 10 bits
    path = saved_packed(tmp_path / "0.tif", pixels)
    assert bit_depth(scenario_of(tmp_path, [path])) == 12
    np.testing.assert_array_equal(decoded(path, SIZE, 12).pixels[0, 0].numpy(), pixels >> 4)


def saved_packed(path, pixels):
    """Write a TIFF file of 12 bits per sample, two samples in three bytes."""
    left, right = pixels[:, ::2].astype(int), pixels[:, 1::2].astype(int)
    body = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], -1).astype(np.uint8).tobytes()
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(body)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(body))
    path.write_bytes(head + body + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


def test_test_images_brighter_than_the_bits_in_use_are_noted(tmp_path):
    train = [saved(tmp_path / "train/0.png", noise(*SIZE, high=4096, dtype=np.uint16))]
    bright, dark = noise(*SIZE, high=60000, dtype=np.uint16, seed=1), noise(*SIZE, high=900, dtype=np.uint16, seed=2)
    test = [saved(tmp_path / "test/0.png", bright), saved(tmp_path / "test/1.png", dark)]
    found = take_notes(scenario_of(tmp_path, train, test))
    assert found.bits == 12
    assert found.notes == ("1 test image with values that take more than 12 bits, which are white",)


def test_a_mixture_of_8_and_16_bits_is_refused(tmp_path):
    train = [saved(tmp_path / "train/0.png", noise(*SIZE))]
    test = [saved(tmp_path / "test/0.png", noise(*SIZE, high=4096, dtype=np.uint16))]
    with pytest.raises(DataError, match=r"mixes images of 8 and of 16 bits, such as .*train/0\.png and .*test/0\.png"):
        bit_depth(scenario_of(tmp_path, train, test))


def test_colours_that_reading_would_darken_are_refused(tmp_path):
    full = noise(*SIZE, 3, high=65536, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "full.tif", full, photometric="rgb")
    assert bit_depth(scenario_of(tmp_path, [tmp_path / "full.tif"])) == 16
    tifffile.imwrite(tmp_path / "dark.tif", full >> 4, photometric="rgb")
    with pytest.raises(DataError, match="coloured and use 12 of 16 bits per channel"):
        bit_depth(scenario_of(tmp_path, [tmp_path / "dark.tif"]))


def test_the_depth_is_remembered_until_a_file_changes(tmp_path, monkeypatch):
    path = saved(tmp_path / "0.png", noise(*SIZE, high=4096, dtype=np.uint16))
    assert bit_depth(scenario_of(tmp_path, [path], cached=True)) == 12
    with monkeypatch.context() as patched:
        patched.setattr("bench.datasets.bit_depth.read_image", lambda *_: pytest.fail("read again"))
        assert bit_depth(scenario_of(tmp_path, [path], cached=True)) == 12
    saved(path, noise(*SIZE, high=60000, dtype=np.uint16))
    assert bit_depth(scenario_of(tmp_path, [path], cached=True)) == 16


# --- large images ---


@pytest.mark.slow
def test_line_scan_images_are_read_without_a_warning(tmp_path):
    rows = 45_000
    path = saved(tmp_path / "line.png", Image.new("L", (4096, rows), 77), compress_level=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_size(path) == (rows, 4096)
        assert (decoded(path, (32, 32)).pixels == 77).all()


def test_the_limit_of_pixels_can_be_set(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", noise(*SIZE))
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "863")
    with pytest.raises(DataError, match=r"a\.png has 36 × 24 = 864 pixels, more than 863: .* set BENCH_MAX_PIXELS"):
        decoded(path, (8, 8))
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "864")
    assert decoded(path, (8, 8)).sizes == (SIZE,)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "many")
    with pytest.raises(UsageError, match="BENCH_MAX_PIXELS is 'many'"):
        decoded(path, (8, 8))


@pytest.mark.parametrize("suffix", ["webp", "gif", "ppm", "tga", "jp2"])
def test_other_formats_are_images_too(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise(*SIZE)))
    with Image.open(path) as image:
        expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(decoded(path, SIZE).pixels[0], expected)


def test_pixels_of_16_bits_in_all_are_not_deep(tmp_path):
    header = struct.pack("<2sIHHI", b"BM", 66 + 8, 0, 0, 66)
    header += struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0) + struct.pack("<III", 0xF800, 0x07E0, 0x1F)
    path = tmp_path / "0.bmp"
    path.write_bytes(header + b"\xff\xff" * 4)
    assert read_image(path, lambda image: np.asarray(image.convert("RGB")).min()) == 255
    assert not read_image(path, is_stored_deep)
