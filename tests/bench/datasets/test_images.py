import gc
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
from bench.datasets.pixels import image_size
from bench.errors import DataError


def noise(*shape, high=256, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def saved(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def decode_one(path, size=(8, 6)):
    return decode_images([path], size, Cache(Path("unused"), enabled=False)).pixels[0]


def expected(pixels, size=(8, 6)):
    resized = Image.fromarray(pixels).convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())


# --- formats ---


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF"])
@pytest.mark.parametrize("shape", [(40, 33), (40, 33, 3)], ids=["gray", "rgb"])
def test_lossless_formats(tmp_path, suffix, shape):
    pixels = noise(*shape)
    assert torch.equal(decode_one(saved(tmp_path / f"a.{suffix}", pixels)), expected(pixels))


@pytest.mark.parametrize("shape", [(40, 33), (40, 33, 3)], ids=["gray", "rgb"])
def test_jpeg(tmp_path, shape):
    path = saved(tmp_path / "a.jpg", noise(*shape))
    assert torch.equal(decode_one(path), expected(np.asarray(Image.open(path))))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_gray_keeps_the_upper_byte(tmp_path, suffix):
    pixels = noise(40, 33, high=65536, dtype=np.uint16)
    assert torch.equal(decode_one(saved(tmp_path / f"a.{suffix}", pixels)), expected((pixels >> 8).astype(np.uint8)))


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_sixteen_bit_rgb_keeps_the_upper_byte(tmp_path, byteorder):
    pixels = noise(40, 33, 3, high=65536, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", byteorder=byteorder)
    assert torch.equal(decode_one(tmp_path / "a.tif"), expected((pixels >> 8).astype(np.uint8)))


def test_palette_alpha_and_bilevel(tmp_path):
    rgb = noise(20, 20, 3)
    palette = Image.fromarray(rgb).quantize(16)
    palette.save(tmp_path / "palette.png")
    assert torch.equal(decode_one(tmp_path / "palette.png"), expected(np.asarray(palette.convert("RGB"))))
    alpha = np.dstack([rgb, noise(20, 20)])
    assert torch.equal(decode_one(saved(tmp_path / "alpha.png", alpha)), expected(rgb))
    bilevel = noise(20, 20) > 127
    assert torch.equal(decode_one(saved(tmp_path / "bits.png", bilevel)), expected(bilevel.astype(np.uint8) * 255))


def test_floating_point_pixels_are_refused(tmp_path):
    path = saved(tmp_path / "a.tif", noise(20, 20).astype(np.float32))
    with pytest.raises(DataError, match=r"a\.tif: its values have signs or fractions: .* of 8 or 16 bits"):
        decode_one(path)


def test_sizes_may_differ_and_be_extreme(tmp_path, cache):
    wide, tall = saved(tmp_path / "wide.png", noise(30, 2000)), saved(tmp_path / "tall.png", noise(2000, 30, 3))
    decoded = decode_images([wide, tall], (16, 24), cache)
    assert decoded.sizes == ((30, 2000), (2000, 30))
    assert decoded.pixels.shape == (2, 3, 16, 24)
    assert torch.equal(decoded.pixels[0], expected(noise(30, 2000), (16, 24)))


# --- damaged images ---


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
@pytest.mark.parametrize("kept", [0, 10, 0.5], ids=["empty", "header", "half"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_truncated_images_are_named(tmp_path, cache, suffix, kept):
    whole = saved(tmp_path / "whole.png", noise(50, 50, 3))
    path = saved(tmp_path / f"broken.{suffix}", noise(50, 50, 3))
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(DataError, match=rf"cannot read .*broken\.{suffix}"):
        decode_images([whole, path], (8, 8), cache)
    assert not any((tmp_path / "cache" / "decoded").glob(".*.partial"))


def test_missing_images_and_empty_sets(tmp_path, cache):
    with pytest.raises(DataError, match="No such file"):
        decode_images([tmp_path / "none.png"], (8, 8), cache)
    with pytest.raises(DataError, match="no images"):
        decode_images([], (8, 8), cache)
    with pytest.raises(DataError, match="no such file"):
        image_size(tmp_path / "none.png")


# --- cache ---


@pytest.fixture
def paths(tmp_path):
    return [saved(tmp_path / f"{index}.png", np.full((10 + index, 12), 40 * index, np.uint8)) for index in range(5)]


def entry(cache, suffix="npy"):
    (path,) = (cache.directory / "decoded").glob(f"*.{suffix}")
    return path


def test_decodes_once_per_content_and_size(paths, cache):
    first = decode_images(paths, (8, 6), cache)
    made = entry(cache).stat().st_mtime_ns
    again = decode_images(paths, (8, 6), cache)
    assert torch.equal(first.pixels, again.pixels)
    assert first.sizes == again.sizes == tuple((10 + index, 12) for index in range(5))
    assert entry(cache).stat().st_mtime_ns == made
    decode_images(paths, (6, 8), cache)
    decode_images(paths[:2], (8, 6), cache)
    assert len(list((cache.directory / "decoded").glob("*.npy"))) == 3


def test_the_same_content_elsewhere_shares_the_entry(paths, tmp_path, cache):
    decode_images(paths, (8, 6), cache)
    copies = [tmp_path / "copy" / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    decode_images(copies, (8, 6), cache)
    entry(cache)


def test_a_changed_file_is_noticed_behind_an_unchanged_time_stamp(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("bench.datasets.cache._SETTLED_NS", -(10**18))
    path = saved(tmp_path / "a.bmp", np.full((10, 12), 1, np.uint8))
    before = decode_images([path], (8, 6), cache).pixels
    status = path.stat()
    time.sleep(0.02)  # the file system's clock ticks
    saved(path, np.full((10, 12), 2, np.uint8))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after = decode_images([path], (8, 6), cache).pixels
    assert (before.unique().item(), after.unique().item()) == (1, 2)


def test_digests_are_remembered(paths, cache, monkeypatch):
    monkeypatch.setattr("bench.datasets.cache._SETTLED_NS", -(10**18))
    digests = cache.digests(paths)
    (index,) = (cache.directory / "digests").iterdir()
    remembered = json.loads(index.read_text())
    remembered["0.png"][-1] = "from the index"
    index.write_text(json.dumps(remembered))
    assert cache.digests(paths) == ["from the index", *digests[1:]]
    index.write_text("[broken")
    assert cache.digests(paths) == digests


def test_a_just_written_file_is_not_remembered(paths, cache):
    cache.digests(paths)
    assert not (cache.directory / "digests").exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        ("npy", truncate),
        ("npy", flip),
        ("npy", lambda path: path.write_bytes(b"")),
        ("npy", Path.unlink),
        ("json", lambda path: path.write_text("{")),
        ("json", lambda path: path.write_text("[]")),
        ("json", Path.unlink),
    ],
)
def test_a_broken_entry_is_made_again(paths, cache, suffix, damage):
    good = decode_images(paths, (8, 6), cache).pixels.clone()
    damage(entry(cache, suffix))
    assert torch.equal(decode_images(paths, (8, 6), cache).pixels, good)
    made = entry(cache).stat().st_mtime_ns
    assert torch.equal(decode_images(paths, (8, 6), cache).pixels, good)
    assert entry(cache).stat().st_mtime_ns == made


def test_leftovers_of_a_killed_process_are_removed(paths, cache):
    decode_images(paths, (8, 6), cache)
    leftover = entry(cache).with_name(f".{entry(cache).name}.x.partial")
    leftover.write_bytes(b"half")
    entry(cache).unlink()
    decode_images(paths, (8, 6), cache)
    assert not leftover.exists()


def test_without_cache_nothing_is_written(paths, tmp_path):
    decoded = decode_images(paths, (8, 6), Cache(tmp_path / "cache", enabled=False))
    assert decoded.sizes[4] == (14, 12)
    assert not (tmp_path / "cache").exists()


def test_pixels_are_private_and_lead_to_no_file(paths, cache):
    pixels = decode_images(paths, (8, 6), cache).pixels
    pixels.fill_(7)
    assert not torch.equal(decode_images(paths, (8, 6), cache).pixels, pixels)
    assert pixels.untyped_storage().filename is None
    reached, pending = set(), [pixels, pixels.numpy(), pixels.untyped_storage()]
    while pending:
        thing = pending.pop()
        if id(thing) not in reached and not isinstance(thing, type):
            reached.add(id(thing))
            assert not isinstance(thing, str | Path | np.memmap), thing
            pending += gc.get_referents(thing)
            pending += [base] if (base := getattr(thing, "base", None)) is not None else []


def test_an_unwritable_cache_costs_time_only(paths, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        decoded = decode_images(paths, (8, 6), Cache(tmp_path / "file" / "cache"))
    assert decoded.pixels.shape == (5, 3, 8, 6)
    assert "cannot write decoded images" in caplog.text


FULL_DISK = """
import logging, resource, sys
from pathlib import Path
from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
logging.basicConfig(stream=sys.stdout)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # like a full disk, writing fails in the middle
folder = Path(sys.argv[1])
decoded = decode_images(sorted(folder.glob("*.png")), (64, 64), Cache(folder / "cache"))
print(tuple(decoded.pixels.shape), int(decoded.pixels[4].max()))
"""


@pytest.mark.slow
def test_a_full_disk_costs_time_only(paths, tmp_path):
    pytest.importorskip("resource")
    output = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=True
    ).stdout
    assert "(5, 3, 64, 64) 160" in output
    assert "File too large); continuing in memory" in output
    assert not [path.name for path in (tmp_path / "cache/decoded").iterdir() if path.suffix != ".lock"]


TOGETHER = """
import sys
from pathlib import Path
import bench.datasets.images
from bench.datasets.cache import Cache
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
decoded = bench.datasets.images.decode_images(sorted(folder.glob("*.png")), (64, 64), Cache(folder / "cache"))
print(int(decoded.pixels.long().sum()), decoded.sizes)
"""


@pytest.mark.slow
def test_two_processes_decode_the_same_set_at_once(tmp_path, cache):
    paths = [saved(tmp_path / f"{index:02}.png", noise(200 + index, 150, 3)) for index in range(20)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    alone = decode_images(paths, (64, 64), Cache(tmp_path / "none", enabled=False))
    assert outputs == [f"{int(alone.pixels.long().sum())} {alone.sizes}\n"] * 2
    entry(cache)
