import numpy as np
import pytest
from PIL import Image

from bench.datasets.cache import Cache
from bench.datasets.photographs import PhotographFolder
from bench.errors import DataError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    for index in range(12):
        path = folder / f"class{index % 3}/{index:02}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((10 + index, 14, 3), 20 * index, dtype=np.uint8)).save(path)
    (folder / "readme.txt").write_text("no image")
    return folder


def values(images):
    return [round(float(image.float().mean()) / 20) for image in images[:]]


def test_all_images_in_sorted_order(folder, tmp_path):
    images = PhotographFolder(folder, Cache(tmp_path / "cache")).images((8, 6))
    assert images[:].shape == (12, 3, 8, 6)
    assert values(images) == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]


def test_center_crop(tmp_path):
    pixels = np.zeros((16, 16), dtype=np.uint8)
    pixels[4:12, 5:11] = 255
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels).save(tmp_path / "photos/a.png")
    images = PhotographFolder(tmp_path / "photos", Cache(tmp_path / "cache")).images((16, 16), center_crop=(8, 6))
    assert images[:].shape == (1, 3, 8, 6)
    assert images[0].min() == 255


def test_a_limit_draws_a_seeded_subset_without_replacement(folder, tmp_path):
    source = PhotographFolder(folder, Cache(tmp_path / "cache"))
    first = values(source.images((8, 8), limit=5, seed=1))
    assert first == values(source.images((8, 8), limit=5, seed=1))
    assert len(set(first)) == 5
    assert first != sorted(first)
    assert first != values(source.images((8, 8), limit=5, seed=2))


def test_choices_from_a_larger_folder_do_not_fill_the_cache(folder, tmp_path):
    source = PhotographFolder(folder, Cache(tmp_path / "cache"))
    source.images((8, 8), limit=5, seed=1)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_within_the_limit_all_seeds_share_one_decoding(folder, tmp_path):
    source = PhotographFolder(folder, Cache(tmp_path / "cache"))
    orders = [values(source.images((8, 8), limit=100, seed=seed)) for seed in (1, 2)]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert len(list((tmp_path / "cache/decoded").glob("*.npy"))) == 1


def test_the_random_order_does_not_depend_on_the_limit_being_reached(folder, tmp_path):
    source = PhotographFolder(folder, Cache(tmp_path / "cache"))
    assert values(source.images((8, 8), limit=5, seed=3)) == values(source.images((8, 8), limit=12, seed=3))[:5]


def test_identity_follows_the_files(folder, tmp_path):
    cache = Cache(tmp_path / "cache")
    identity = PhotographFolder(folder, cache).identity
    assert identity.startswith("photos (12 images, ")
    assert identity == PhotographFolder(folder, cache).identity
    (folder / "class0/00.JPEG").unlink()
    assert PhotographFolder(folder, cache).identity.startswith("photos (11 images, ")


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        _ = PhotographFolder(tmp_path / "none", Cache(tmp_path / "cache")).identity
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images under"):
        PhotographFolder(tmp_path / "empty", Cache(tmp_path / "cache")).images((8, 8))


def test_a_damaged_photograph_is_named(folder, tmp_path):
    (folder / "class1/01.JPEG").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"01\.JPEG"):
        PhotographFolder(folder, Cache(tmp_path / "cache")).images((8, 8))
