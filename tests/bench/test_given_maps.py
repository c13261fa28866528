"""Files of anomaly maps from elsewhere, and of image scores."""

import dataclasses
import importlib.util
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from cli_support import write_scenario
from PIL import Image

from bench.datasets.cache import Cache
from bench.datasets.selection import select_scenarios
from bench.errors import DataError
from bench.given_maps import MapFolder, find_maps, folders_of, read_map, read_scores, scan


@pytest.mark.parametrize("form", ["tiff", "npz", "npy"])
def test_whatever_is_damaged_in_a_map_names_its_file(form: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    array = rng.random((40, 50), dtype=np.float32)
    file = tmp_path / f"map.{form}"
    if form == "tiff":
        tifffile.imwrite(file, array, compression="zlib")
    else:
        np.savez_compressed(file, array) if form == "npz" else np.save(file, array)
    whole = bytearray(file.read_bytes())
    messages = []
    for _ in range(150):
        damaged = whole.copy()
        for position in rng.integers(0, len(whole), 3):
            damaged[position] ^= int(rng.integers(1, 256))
        file.write_bytes(damaged[: rng.integers(1, len(whole))] if rng.random() < 0.3 else damaged)
        try:
            read_map(file)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert all(str(file) in message for message in messages)


FLOATS = np.random.default_rng(0).random((40, 50), dtype=np.float32)
INTEGERS = np.random.default_rng(0).integers(0, 65536, (40, 50)).astype(np.uint16)


@pytest.mark.parametrize("array", [FLOATS, INTEGERS], ids=["float32", "uint16"])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", None])
def test_every_common_compression_is_read_exactly(tmp_path: Path, array: np.ndarray, compression: str | None) -> None:
    Image.fromarray(array).save(tmp_path / "map.tif", compression=compression)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), array.astype(np.float32))


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"tile": (16, 16)}], ids=["big-endian", "tiled"])
def test_other_ways_of_storing_are_read_exactly(tmp_path: Path, options: dict[str, object]) -> None:
    tifffile.imwrite(tmp_path / "map.tiff", FLOATS, **options)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tiff"), FLOATS)


@pytest.mark.parametrize(("array", "predictor"), [(INTEGERS, 2), (FLOATS, 3)])
def test_differences_of_neighbours_are_read_exactly(tmp_path: Path, array: np.ndarray, predictor: int) -> None:
    Image.fromarray(array).save(tmp_path / "map.tif", compression="tiff_lzw", tiffinfo={317: predictor})
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), array.astype(np.float32))


def saved_twice(file: Path) -> None:
    with file.open("wb") as opened:
        np.save(opened, FLOATS)
        np.save(opened, FLOATS)


@pytest.mark.parametrize(
    ("name", "write", "match"),
    [
        ("a.tif", lambda file: Image.fromarray(np.uint8(FLOATS * 255)).convert("P").save(file), "it has a palette"),
        ("a.npy", lambda file: np.save(file, FLOATS.astype(object)), "it holds Python objects, which are never loaded"),
        ("a.npz", lambda file: np.savez(file, FLOATS.astype(object)), "it holds Python objects, which are never load"),
        ("a.npy", FLOATS.dump, "it is neither .npy nor .npz"),
        ("a.npy", saved_twice, "something follows its array"),
        ("a.npy", lambda file: np.save(file, FLOATS[None, :, :1]), r"of shape \(1, 40, 1\); expected one \(height"),
    ],
    ids=["palette", "objects", "archived objects", "pickle", "two arrays", "two sides of one pixel"],
)
def test_what_may_be_something_else_is_refused(
    tmp_path: Path, name: str, write: Callable[[Path], None], match: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(DataError, match=match) as caught:
        read_map(tmp_path / name)
    assert "allow_pickle" not in str(caught.value)


@pytest.mark.parametrize("array", [FLOATS[None], FLOATS[..., None]], ids=["first", "last"])
def test_an_axis_of_one_channel_is_dropped(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_map(tmp_path / "a.npy"), FLOATS)


def test_a_transposed_map_is_never_stretched(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FLOATS)
    files, images = [tmp_path / "a.npy"], [tmp_path / "a.png"]
    with pytest.raises(DataError, match=r"a\.npy has 40×50 pixels .*: height and width are exchanged"):
        scan(files, images, [(50, 40)], upsample=True)
    assert scan(files, images, [(80, 100)], upsample=True) == FLOATS.max()


def write_lzw(file: Path, array: np.ndarray, **options: Any) -> None:
    """Write LZW as no dependency can: of any type, in either byte order, in strips or tiles."""

    def encoded(block: np.ndarray) -> bytes:
        content = block.tobytes()
        codes = [code for start in range(0, len(content), 200) for code in (256, *content[start : start + 200])]
        bits = "".join(f"{code:09b}" for code in [*codes, 257])  # cleared before codes get longer than 9 bits
        return int(bits.ljust(-len(bits) % 8 + len(bits), "0"), 2).to_bytes((len(bits) + 7) // 8, "big")

    stored = array.astype(array.dtype.newbyteorder(options.get("byteorder", "<")))
    height, width = options.get("tile", array.shape)
    padded = np.pad(stored, ((0, -array.shape[0] % height), (0, -array.shape[1] % width)))
    blocks = [
        encoded(padded[top : top + height, left : left + width])
        for top in range(0, len(padded), height)
        for left in range(0, padded.shape[1], width)
    ]
    strips = {} if "tile" in options else {"rowsperstrip": height}
    written = {"shape": array.shape, "dtype": stored.dtype, "photometric": "minisblack", **strips, **options}
    tifffile.imwrite(file, iter(blocks), compression="zlib", **written)  # whose tag is replaced
    with tifffile.TiffFile(file, mode="r+") as opened:
        opened.pages[0].tags["Compression"].overwrite(5)


@pytest.mark.parametrize("array", [FLOATS, INTEGERS], ids=["float32", "uint16"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}], ids=["strips", "tiles"])
def test_lzw_is_read_exactly_however_it_is_laid_out(tmp_path: Path, array: np.ndarray, options: dict[str, Any]) -> None:
    write_lzw(tmp_path / "map.tif", array, **options)
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), array.astype(np.float32))


def test_big_endian_integers_are_read_exactly_from_lzw(tmp_path: Path) -> None:
    write_lzw(tmp_path / "map.tif", INTEGERS, byteorder=">", tile=(16, 16))
    np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), INTEGERS.astype(np.float32))


@pytest.mark.parametrize(
    ("array", "byteorder", "message"),
    [
        (FLOATS, ">", "big-endian float32 values with the compression LZW"),
        (FLOATS.astype(np.float64), "<", "float64 values with the compression LZW"),
        (FLOATS.astype(np.float16), "<", "float16 values with the compression LZW"),
    ],
    ids=["big-endian", "float64", "float16"],
)
def test_what_no_dependency_reads_exactly_says_what_to_install(
    tmp_path: Path, array: np.ndarray, byteorder: str, message: str
) -> None:
    write_lzw(tmp_path / "map.tif", array, byteorder=byteorder)
    if importlib.util.find_spec("imagecodecs") is not None:
        np.testing.assert_array_equal(read_map(tmp_path / "map.tif"), array)
        return
    with pytest.raises(DataError, match=rf"map\.tif: {message}.*pip install imagecodecs"):
        read_map(tmp_path / "map.tif")


@pytest.mark.parametrize("compression", ["tiff_lzw", None])
@pytest.mark.parametrize("height", [40, 10], ids=["of one size", "of two sizes"])
def test_several_pages_are_refused(tmp_path: Path, compression: str | None, height: int) -> None:
    page, other = Image.fromarray(FLOATS), Image.fromarray(FLOATS[:height])
    page.save(tmp_path / "map.tif", save_all=True, append_images=[other], compression=compression)
    with pytest.raises(DataError, match=r"map\.tif: it has 2 pages, one is expected"):
        read_map(tmp_path / "map.tif")


@pytest.mark.parametrize("compression", ["tiff_lzw", None])
@pytest.mark.parametrize(("tag", "value", "message"), [(274, 3, "Orientation is 3"), (262, 0, "low values are white")])
def test_tags_that_libraries_take_differently_are_refused(
    tmp_path: Path, compression: str | None, tag: int, value: int, message: str
) -> None:
    array = FLOATS if tag == 274 else INTEGERS.astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "map.tif", compression=compression, tiffinfo={tag: value})
    with pytest.raises(DataError, match=rf"map\.tif: .*{message}"):
        read_map(tmp_path / "map.tif")


SCORES = {"test/good/000": 0.25, "test/good/001": 0.5, "test/good/002": 1.0}


def written(separator: str = ",", comma: str = ".", head: str = "image,score") -> str:
    lines = [head.replace(",", separator)]
    lines += [f"{name}{separator}{str(score).replace('.', comma)}" for name, score in SCORES.items()]
    return "\r\n".join(lines) + "\r\n"


@pytest.mark.parametrize(
    "content",
    [
        written().encode(),
        written().encode("utf-8-sig"),
        written().encode("utf-16"),
        written(";").encode(),
        written(";", ",").encode("utf-8-sig"),
        written("\t").encode(),
        written(", ").encode(),
        written(head="Image,Score").encode(),
        ("sep=;\n" + written(";")).encode(),
        written().replace("test/good/000", '"test/good/000"').encode(),
        written().replace("/00", "\\00").replace("test/", "test\\").encode(),
        re.sub(r"(/00\d)", r"\1.png", written()).encode(),
    ],
    ids=[
        "plain",
        "mark",
        "utf-16",
        "semicolons",
        "decimal-commas",
        "tabs",
        "blanks",
        "capitals",
        "declared",
        "quoted",
        "backslashes",
        "suffixes",
    ],
)
def test_scores_are_read_as_spreadsheets_save_them(tmp_path: Path, content: bytes) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    (scenario,) = select_scenarios("parts/bolt", tmp_path / "data", Cache(tmp_path, enabled=False))
    (tmp_path / "scores.csv").write_bytes(content)
    normal = [image for image in scenario.test if not image.anomalous]
    scores = read_scores(MapFolder(tmp_path, (), ()), dataclasses.replace(scenario, test=tuple(normal)))
    assert scores is not None
    assert scores.tolist() == list(SCORES.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("picture,score\n", "no column image; its columns are picture, score"),
        ("image,score\ntest/good/000,high\n", "line 2, column score: 'high' is no finite number, of test/good/000"),
        ("image,score\ntest/good/000,nan\n", "'nan' is no finite number"),
        ("image,score\ntest/good/000,1\ntest/good/000.png,1\n", "line 3, column image: test/good/000 has two scores"),
        ("image,score\ntest/good/000,1\ntest/good/000,1\n", "line 3, column image: test/good/000 has two scores"),
        ("", "it is empty"),
    ],
)
def test_what_is_wrong_with_scores_is_said(tmp_path: Path, content: str, message: str) -> None:
    write_scenario(tmp_path / "data/parts/bolt")
    (scenario,) = select_scenarios("parts/bolt", tmp_path / "data", Cache(tmp_path, enabled=False))
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        read_scores(MapFolder(tmp_path, (), ()), scenario)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "maps"),
    [
        ("mvtec_ad/widget", ["mvtec_ad/widget", "mvtec_ad_other/widget", "widget"]),
        ("mvtec_anomaly_detection/bottle", ["mvtec_ad/bottle", "mvtec_anomaly_detection/bottle", "bottle"]),
        ("VisA_pytorch/1cls/candle", ["visa/candle", "VisA_pytorch/1cls/candle", "candle"]),
        ("A, B/part, left", ["A, B/part, left", "part, left"]),
        ("Größe/Teil-é", ["Größe/Teil-é", "Teil-é"]),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_maps_lie_under_any_name_that_finds_the_scenario(tmp_path: Path, data: str, maps: list[str], form: str) -> None:
    write_scenario(tmp_path / "data" / unicodedata.normalize("NFD", data))
    (scenario,) = select_scenarios("all", tmp_path / "data", Cache(tmp_path, enabled=False))
    for index, name in enumerate(maps):
        folder = tmp_path / str(index) / unicodedata.normalize(form, name)
        for image in scenario.names:
            path = folder / f"{image}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, FLOATS)
        (found,) = folders_of(scenario, tmp_path / str(index))
        assert found == folder
        assert len(find_maps(scenario, found).files) == len(scenario.test)
