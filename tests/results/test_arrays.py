import numpy as np
import pytest

from results.arrays import (
    Example,
    choose_examples,
    make_example,
    read_examples,
    read_maps,
    write_examples,
    write_maps,
)
from results.errors import ResultError
from results.record import ImageResult


def image_result(name: str) -> ImageResult:
    defect = name.split("/")[1]
    return ImageResult(name=name, defect=defect, anomalous=defect != "good", score=0.5)


def test_maps_come_back_as_they_were(tmp_path):
    maps = {
        "test/crack/../000": np.full((2, 3), 0.1, np.float16),
        "file": np.arange(12, dtype=np.float32).reshape(4, 3),
    }
    write_maps(tmp_path / "cell", maps)
    read = read_maps(tmp_path / "cell")
    assert list(read) == list(maps)
    for name, array in maps.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_maps_of_another_type_are_refused(tmp_path):
    with pytest.raises(ValueError, match="float64"):
        write_maps(tmp_path, {"a": np.zeros((2, 2))})


def test_missing_maps_tell_how_to_get_them(tmp_path):
    with pytest.raises(ResultError, match="--keep-maps"):
        read_maps(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"\x80\x04K\x01."])
def test_damaged_arrays_are_named(tmp_path, content):
    (tmp_path / "maps.npz").write_bytes(content)
    with pytest.raises(ResultError, match=r"maps\.npz is damaged"):
        read_maps(tmp_path)


def test_truncated_arrays_are_named(tmp_path):
    path = write_maps(tmp_path, {"a": np.random.default_rng(0).random((64, 64), np.float32)})
    content = bytearray(path.read_bytes())
    content[1000:2000] = b"\0" * 1000
    path.write_bytes(content)
    with pytest.raises(ResultError, match="is damaged"):
        read_maps(tmp_path)


def test_examples_come_back_as_they_were(tmp_path):
    assert read_examples(tmp_path) == []
    rng = np.random.default_rng(0)
    example = Example(
        "test/good/000",
        rng.integers(0, 255, (20, 30, 3), np.uint8),
        rng.random((20, 30)) > 0.5,
        rng.random((20, 30), np.float32),
    )
    write_examples(tmp_path, [example])
    (read,) = read_examples(tmp_path)
    assert read.name == example.name
    np.testing.assert_array_equal(read.image, example.image)
    np.testing.assert_array_equal(read.mask, example.mask)
    np.testing.assert_array_equal(read.map, example.map)


def test_defects_that_nobody_has_marked_have_no_mask(tmp_path):
    write_examples(tmp_path, [make_example("a", np.zeros((4, 4, 3), np.uint8), None, np.zeros((2, 2), np.float16))])
    assert read_examples(tmp_path)[0].mask is None


def test_the_same_examples_give_the_same_bytes(tmp_path):
    example = make_example("a", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool), np.zeros((2, 2), np.float16))
    assert (
        write_examples(tmp_path / "a", [example]).read_bytes() == write_examples(tmp_path / "b", [example]).read_bytes()
    )


@pytest.mark.parametrize(("size", "expected"), [((1024, 512), (256, 128)), ((30, 2000), (4, 256)), ((5, 7), (5, 7))])
def test_thumbnails_keep_thin_defects(size, expected):
    mask = np.zeros(size, bool)
    mask[size[0] // 2, :] = True
    example = make_example("a", np.zeros((*size, 3), np.uint8), mask, np.ones((8, 8), np.float16))
    assert example.image.shape == (*expected, 3)
    assert example.mask.any(axis=0).all()
    assert not example.mask.all() or expected[0] < 5
    np.testing.assert_array_equal(example.map, 1)


def test_examples_of_a_wrong_form_are_refused():
    image, mask, anomaly_map = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool), np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="mask is bool"):
        Example("a", image, mask[:2], anomaly_map)
    with pytest.raises(ValueError, match="map is float32"):
        Example("a", image, mask, anomaly_map.astype(np.float64))
    with pytest.raises(ValueError, match="image is uint8"):
        Example("a", image[..., :1], mask, anomaly_map)
    with pytest.raises(ValueError, match="at most 256"):
        Example("a", np.zeros((4, 300, 3), np.uint8), np.zeros((4, 300), bool), np.zeros((4, 300), np.float32))


def test_examples_are_chosen_by_name_over_all_defect_types():
    names = [f"test/{defect}/{number}" for defect in ("scratch", "hole", "good") for number in (2, 1, 0)]
    images = [image_result(name) for name in names]
    assert choose_examples(images) == [
        "test/good/0",
        "test/good/1",
        "test/hole/0",
        "test/hole/1",
        "test/scratch/0",
        "test/scratch/1",
    ]
    assert choose_examples(images, normal=1, anomalous=1) == ["test/good/0", "test/hole/0"]
    assert choose_examples([]) == []
