import dataclasses
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
from bench.datasets.inventory import take_inventory
from bench.datasets.masks import GroundTruth, read_ground_truth
from bench.datasets.selection import select_scenarios
from bench.errors import DataError, UsageError


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)


def gray(value=100, size=(20, 30)):
    return np.full(size, value, dtype=np.uint8)


def make_scenario(folder, train=3, normal=2, anomalous=2):
    for index in range(train):
        write(folder / f"train/good/{index:03}.png", gray(90 + index))
    for index in range(normal):
        write(folder / f"test/good/{index:03}.png", gray(110 + index))
    for index in range(anomalous):
        write(folder / f"test/scratch/{index:03}.png", gray(130 + index))
        mask = gray(0)
        mask[5:8, 5:15] = 255
        write(folder / f"ground_truth/scratch/{index:03}_mask.png", mask)
    return folder


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def truth_of(scenario, size=(20, 30)):
    return GroundTruth(scenario, [size] * len(scenario.test))


def only(root, cache, selection="all"):
    (scenario,) = select_scenarios(selection, root, cache)
    return scenario


def test_reads_a_scenario(root, cache):
    make_scenario(root / "parts/bolt")
    scenario = only(root, cache)
    scenario.check()
    assert scenario.id == "parts/bolt"
    assert scenario.collection.title == "parts"
    assert [path.name for path in scenario.train] == ["000.png", "001.png", "002.png"]
    assert scenario.validation == ()
    assert [(image.name, image.defect, image.anomalous) for image in scenario.test] == [
        ("test/good/000", "good", False),
        ("test/good/001", "good", False),
        ("test/scratch/000", "scratch", True),
        ("test/scratch/001", "scratch", True),
    ]
    assert not scenario.saturated
    assert scenario.note is None


def test_knows_the_published_collections(root, cache):
    make_scenario(root / "mvtec_anomaly_detection/toothbrush", train=60, normal=12, anomalous=30)
    make_scenario(root / "mvtec_anomaly_detection/pill")
    make_scenario(root / "mvtec_anomaly_detection/mine")
    toothbrush = only(root, cache, "mvtec_ad/toothbrush")
    assert (toothbrush.collection.title, toothbrush.collection.scenarios) == ("MVTec AD", 15)
    assert toothbrush.note is None
    assert only(root, cache, "mvtec_ad/pill").note == (
        "incomplete: 3 of 267 train, 2 of 26 normal test, 2 of 141 anomalous test"
    )
    mine = only(root, cache, "mvtec_ad/mine")
    assert mine.note == "not a scenario of MVTec AD"
    assert (mine.id, mine.collection.title, mine.collection.scenarios) == (
        "mvtec_ad_other/mine",
        "MVTec AD, other scenarios",
        None,
    )
    (found,) = take_inventory(root).collections
    assert found.scenarios == ("mine", "pill", "toothbrush")
    assert found.coverage == "2 of 15 scenarios and 1 other"


def test_one_collection_in_two_folders_is_refused(root, cache):
    make_scenario(root / "mvtec_ad/pill")
    make_scenario(root / "MVTec-AD/pill")
    with pytest.raises(UsageError, match="hold MVTec AD: name one of them by its folder, MVTec-AD or mvtec_ad"):
        select_scenarios("all", root, cache)
    assert only(root, cache, "MVTec-AD/pill").train[0].parents[3].name == "MVTec-AD"


def test_fingerprint_follows_names_and_contents_but_not_the_place(root, tmp_path, cache):
    first = only(make_scenario(root / "a/x").parents[1], cache).fingerprint
    second = only(make_scenario(tmp_path / "elsewhere/b/y").parents[1], cache).fingerprint
    assert first == second
    mask = root / "a/x/ground_truth/scratch/000_mask.png"
    write(mask, gray(255))
    assert only(root, cache).fingerprint != first
    mask.unlink()
    assert only(root, cache).fingerprint != first


def test_the_data_of_the_fit_and_of_the_test_have_fingerprints_of_their_own(root, cache):
    folder = loco(root / "a/x", LOCO_CONFIG)

    def fingerprints():
        scenario = only(root, cache)
        return scenario.train_fingerprint, scenario.test_fingerprint

    fit, test = fingerprints()
    write(folder / "test/good/000.png", gray(7))
    assert fingerprints()[0] == fit
    assert fingerprints()[1] != test
    test = fingerprints()[1]
    (folder / "defects_config.json").write_text(json.dumps(LOCO_CONFIG[:1]))
    assert fingerprints()[0] == fit
    assert fingerprints()[1] != test
    test = fingerprints()[1]
    write(folder / "validation/good/000.png", gray(8))
    assert fingerprints()[0] != fit
    assert fingerprints()[1] == test


def test_a_fingerprint_knows_which_image_is_what(root, cache):
    """The same files, taken for something else, are other data."""
    make_scenario(root / "a/x")
    scenario = only(root, cache)
    held_out = dataclasses.replace(scenario, train=scenario.train[1:], validation=scenario.train[:1])
    assert held_out.fingerprint == scenario.fingerprint
    assert held_out.train_fingerprint != scenario.train_fingerprint
    first, *rest = scenario.test
    relabelled = dataclasses.replace(scenario, test=(dataclasses.replace(first, anomalous=not first.anomalous), *rest))
    assert relabelled.test_fingerprint != scenario.test_fingerprint


def test_a_worker_gets_the_fingerprint_with_the_scenario(root, cache):
    make_scenario(root / "a/x")
    scenario = only(root, cache)
    fingerprint = scenario.fingerprint
    (root / "a/x/train/good/000.png").unlink()
    copy = pickle.loads(pickle.dumps(scenario))
    assert copy == scenario
    assert copy.fingerprint == fingerprint


@pytest.mark.parametrize("name", ["000.png", "000.bmp", "000_mask.tif"])
def test_masks_of_look_alikes_are_found(root, cache, name):
    folder = make_scenario(root / "a/x", anomalous=1)
    truth = folder / "ground_truth/scratch"
    mask = Image.open(truth / "000_mask.png")
    mask.load()
    (truth / "000_mask.png").unlink()
    mask.save(truth / name)
    scenario = only(root, cache)
    assert scenario.test[-1].masks == (truth / name,)
    assert truth_of(scenario).mask(-1).sum() == 30


def test_hidden_and_foreign_files_are_left_out(root, cache):
    folder = make_scenario(root / "a/x")
    (folder / "train/good/._000.png").write_bytes(b"resource fork")
    (folder / "train/good/readme.txt").write_text("hello")
    (root / "a/license.txt").write_text("hello")
    (root / "photographs").mkdir()
    assert len(only(root, cache).train) == 3


def loco(folder, config):
    make_scenario(folder, anomalous=0)
    write(folder / "validation/good/000.png", gray())
    write(folder / "test/logical_anomalies/000.png", gray())
    truth = folder / "ground_truth/logical_anomalies/000"
    first, second = gray(0), gray(0)
    first[:10, :10] = 255
    second[5:10, 5:8] = 254
    write(truth / "000.png", first)
    write(truth / "001.png", second)
    (folder / "defects_config.json").write_text(json.dumps(config))
    return folder


LOCO_CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 40, "relative_saturation": False},
    {"defect_name": "tiny", "pixel_value": 254, "saturation_threshold": 0.05, "relative_saturation": True},
]


def test_reads_loco_form(root, cache):
    loco(root / "mvtec_loco/pushpins", LOCO_CONFIG)
    scenario = only(root, cache)
    scenario.check()
    assert scenario.saturated
    assert len(scenario.validation) == 1
    assert scenario.collection.title == "MVTec LOCO"
    image = scenario.test[-1]
    assert (image.name, len(image.masks)) == ("test/logical_anomalies/000", 2)
    truth = truth_of(scenario)
    large, small = truth.defects(-1)
    assert (large.mask.sum(), large.saturation) == (100, 40)
    assert (small.mask.sum(), small.saturation) == (15, 0)  # int(0.05 * 15)
    np.testing.assert_array_equal(truth.mask(-1), large.mask | small.mask)
    assert truth.defects(0) == []


def test_saturation_is_read_as_declared(root, cache):
    config = [LOCO_CONFIG[0] | {"saturation_threshold": 4000}, LOCO_CONFIG[1] | {"saturation_threshold": 1.0}]
    loco(root / "a/x", config)
    assert [region.saturation for region in truth_of(only(root, cache)).defects(-1)] == [4000, 15]


def test_an_unknown_pixel_value_is_refused(root, cache):
    loco(root / "a/x", LOCO_CONFIG[:1])
    with pytest.raises(DataError, match=r"001\.png holds the values 254: expected 0 and one .* \(255\)"):
        truth_of(only(root, cache)).defects(-1)


def test_broken_defects_config(root, cache):
    folder = loco(root / "a/x", LOCO_CONFIG)
    (folder / "defects_config.json").write_text('[{"pixel_value": 255}]')
    with pytest.raises(DataError, match="saturation_threshold"):
        truth_of(only(root, cache)).defects(-1)


def test_incomplete_scenarios_are_called_so(root, cache):
    make_scenario(root / "a/whole")
    (root / "a/empty").mkdir()
    make_scenario(root / "a/single", train=1)
    make_scenario(root / "a/no_defects", anomalous=0)
    make_scenario(root / "a/no_normal", normal=0)
    make_scenario(root / "a/no_mask")
    (root / "a/no_mask/ground_truth/scratch/001_mask.png").unlink()
    make_scenario(root / "a/twice")
    write(root / "a/twice/test/scratch/001.bmp", gray())
    messages = {}
    for scenario in select_scenarios("a", root, cache):
        try:
            scenario.check()
        except DataError as error:
            messages[scenario.name] = str(error)
        assert len(scenario.fingerprint) == 64
    assert "scenario a/empty has no images" in messages["empty"]
    assert "has 1 image to fit on" in messages["single"]
    assert "at least 2 needed; one at least is held out for validation" in messages["single"]
    assert "no ground truth for 1 image of 2 anomalous, such as test/scratch/001" in messages["no_mask"]
    assert "ground_truth/scratch/001_mask.png" in messages["no_mask"]
    assert "has 2 test images named test/scratch/001" in messages["twice"]
    assert set(messages) == {"empty", "single", "no_mask", "twice"}


def test_a_folder_named_outright_is_a_scenario_that_may_be_broken(root, cache):
    (root / "a/empty").mkdir(parents=True)
    with pytest.raises(DataError, match=r"a/empty has no images .*: expected train/good"):
        only(root, cache, "a/empty").check()


def test_selection(root, cache):
    for name in ("a/x", "a/y", "b/z"):
        make_scenario(root / name)

    def ids(selection):
        return [scenario.id for scenario in select_scenarios(selection, root, cache)]

    assert ids("all") == ["a/x", "a/y", "b/z"]
    assert ids("b, a/x,b/z") == ["b/z", "a/x"]
    for selection, hint in {
        "z": "did you mean b/z",
        "a/yy": "did you mean a/y",
        "demoo": "did you mean demo",
        "quux": "under .* there are: all, demo, a, b",
        " ,": "no data sets named",
    }.items():
        with pytest.raises(UsageError, match=hint):
            ids(selection)


def test_nothing_found_says_what_to_do(root, tmp_path, cache):
    with pytest.raises(UsageError, match="--datasets demo"):
        select_scenarios("all", None, cache)
    with pytest.raises(UsageError, match="does not exist"):
        select_scenarios("all", root, cache)
    make_scenario(root / "a/x")
    with pytest.raises(UsageError, match=f"pass --data-root {root}$"):
        select_scenarios("all", root / "a", cache)
    with pytest.raises(UsageError, match=f"pass --data-root {root}$"):
        select_scenarios("all", root / "a/x", cache)
    with pytest.raises(UsageError, match="no collection found"):
        select_scenarios("all", tmp_path, cache)
    assert take_inventory(None).collections == ()


@pytest.mark.slow
def test_real_pill_is_incomplete(cache):
    if "BENCH_DATA" not in os.environ:
        pytest.skip("needs real images: set BENCH_DATA")
    root = Path(os.environ["BENCH_DATA"])
    pill = only(root, cache, "mvtec_ad/pill")
    pill.check()
    assert pill.note == "incomplete: 70 of 267 train, 18 of 26 normal test, 42 of 141 anomalous test"
    decoded = decode_images([image.path for image in pill.test[:3]], (64, 64), cache)
    assert decoded.sizes == ((800, 800),) * 3
    assert read_ground_truth(pill, [(800, 800)] * len(pill.test)).mask(0).any()
