"""The catalogue of published collections, and the page that tells of it."""

import importlib.util
import re
from pathlib import Path

import pytest

from bench.datasets.catalogue import (
    completeness,
    known_by_folder,
    known_by_layout,
    known_by_scenario,
    known_collection,
    known_collections,
)
from bench.datasets.catalogue.reading import read_catalogue, read_collection
from bench.datasets.scenario import TestImage

PAGE = Path(__file__).resolve().parents[3] / "docs/collections.md"
BEGIN, END = "<!-- catalogue: begin (test_catalogue.py compares it with the catalogue) -->\n", "<!-- catalogue: end -->"

VALID = """
name = "parts"
title = "Parts"
folders = ["parts"]
layout = "mvtec"
citation = "A paper"
page = "https://example.org"

[[archives]]
url = "https://example.org/parts.zip"

[images.bolt]
train = 3
test_anomalous = 2
sizes = [[20, 30]]
defects = { scratch = 1, dent = 1 }
"""


def test_images(normal, anomalous):
    return tuple(
        TestImage(f"test/{index}", Path(), "bad" if index >= normal else "good", anomalous=index >= normal)
        for index in range(normal + anomalous)
    )


test_images.__test__ = False


def test_all_collections_of_the_field_are_known():
    assert {known.name for known in known_collections()} == {
        *("autovi", "btad", "dagm", "dtd_synthetic", "elpv", "goods_ad", "kolektor_sdd", "kolektor_sdd2"),
        *("magnetic_tile", "mpdd", "mvtec_ad", "mvtec_ad_2", "mvtec_loco", "real_iad", "visa"),
    }


@pytest.mark.parametrize(
    ("name", "train", "validation", "normal", "anomalous"),
    [  # as the papers say of the whole collections
        ("mvtec_ad", 3629, 0, 467, 1258),
        ("mvtec_loco", 1772, 304, 575, 993),
        ("visa", 8659, 0, 962, 1200),
        ("mpdd", 888, 0, 176, 282),
        ("btad", 1799, 0, 451, 290),
        ("goods_ad", 3136, 0, 1328, 1660),
        ("kolektor_sdd2", 2085, 0, 894, 110),
        ("dagm", 16100 - 8050 - 1046, 0, 8050 - 1054, 1054),
        ("elpv", 588 * 4 // 5 + 920 * 4 // 5, 0, 2624 - 470 - 736 - 821, 56 + 313 + 50 + 402),
    ],
)
def test_the_numbers_add_up_to_the_published_ones(name, train, validation, normal, anomalous):
    images = known_collection(name).images.values()
    assert sum(image.train for image in images) == train
    assert sum(image.validation or 0 for image in images) == validation
    assert sum(image.test_normal for image in images) == normal
    assert sum(image.test_anomalous for image in images) == anomalous


def test_mvtec_ad_has_73_kinds_of_defects():
    images = known_collection("mvtec_ad").images.values()
    assert sum(len(image.defects) for image in images) == 73
    assert all(sum(image.defects.values()) == image.test_anomalous for image in images)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("mvtec_anomaly_detection", "mvtec_ad"),
        ("MVTec-AD", "mvtec_ad"),
        ("mvtec_ad_2", "mvtec_ad_2"),
        ("VisA_20220922", "visa"),
        ("BTech_Dataset_transformed", "btad"),
        ("DAGM_KaggleUpload", "dagm"),
        ("Real-IAD", "real_iad"),
        ("my_parts", None),
    ],
)
def test_a_collection_is_known_by_what_its_folder_is_commonly_called(folder, name):
    known = known_by_folder(Path(folder))
    assert (known and known.name) == name


def test_a_collection_is_known_by_a_layout_or_a_scenario_of_its_own():
    assert known_by_layout("real_iad").name == "real_iad"
    assert known_by_layout("mvtec") is None  # several
    assert known_by_scenario("magnetic_tile").name == "magnetic_tile"
    assert known_by_scenario("pcb") is not None
    assert known_by_scenario("toothbrush") is None  # MVTec AD and Real-IAD
    assert known_by_scenario("nothing") is None


def test_every_layout_is_a_module():
    for known in known_collections():
        assert importlib.util.find_spec(f"bench.datasets.layouts.{known.layout}"), known.name


def test_completeness_counts_what_is_known():
    train, test = (Path(),) * 70, test_images(18, 42)
    assert completeness("mvtec_ad", "pill", train, test) == (
        "incomplete: 70 of 267 train, 18 of 26 normal test, 42 of 141 anomalous test"
    )
    assert completeness("mvtec_ad", "pill", (Path(),) * 267, test_images(26, 141)) is None
    assert completeness("mvtec_ad", "toothbrush", (Path(),) * 61, test_images(12, 30)) == (
        "not the published images: 61 of 60 train"
    )
    loco = (Path(),) * 335, test_images(94, 236)
    assert completeness("mvtec_loco", "juice_bottle", *loco, validation=(Path(),) * 54) is None
    assert completeness("mvtec_loco", "juice_bottle", *loco) == "incomplete: 0 of 54 validation"
    assert completeness("mvtec_ad_2", "can", train, test) is None  # nobody has counted it
    assert completeness("mvtec_ad", "mine", train, test) == "not a scenario of MVTec AD"


def test_a_valid_file_is_read(tmp_path):
    file = tmp_path / "parts.toml"
    file.write_text(VALID)
    known = read_collection(file)
    assert known.images["bolt"].sizes == ((20, 30),)
    assert (known.archives[0].sha256, known.masks, known.collection.scenarios) == (None, "decided", 1)


@pytest.mark.parametrize(
    ("change", "to", "message"),
    [
        (
            'title = "Parts"',
            "title = 1",
            r"parts\.toml of the catalogue is wrong: title: Input should be a valid string",
        ),
        ('title = "Parts"', "", "title: Field required"),
        ('title = "Parts"', 'title = "Parts"\nlicense = "x"', "license: "),
        ("train = 3", "training = 3", r"images\.bolt\.training"),
        ("dent = 1", "dent = 2", "defects are 3 images in all, test_anomalous says 2"),
        ('"parts"]', '"My_Parts"]', "hold more than lower-case letters and digits"),
        ("https://example.org/parts.zip", "http://example.org/parts.zip", "is no https:// link"),
        ('parts.zip"', 'parts.zip"\nsha256 = "abc"', "is not 64 hexadecimal digits"),
        (
            'layout = "mvtec"',
            'layout = "mvtec"\nmasks = "all"',
            "masks: Input should be 'decided', 'nonzero' or 'half'",
        ),
        ("[images.bolt]", "[images.bolt", "is no valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, change, to, message):
    assert change in VALID
    (tmp_path / "parts.toml").write_text(VALID.replace(change, to))
    with pytest.raises(ValueError, match=message):
        read_collection(tmp_path / "parts.toml")


def test_two_collections_of_one_name_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(VALID)
    with pytest.raises(ValueError, match=r"called 'parts': a\.toml, b\.toml"):
        read_catalogue(tmp_path)


def table():
    """The catalogue as the page shows it; a number that is not known of each scenario is a dash."""
    head = ("collection", "name", "scenarios", "train", "normal test", "anomalous test", "ground truth", "licence")
    rows = [head, ("---",) * len(head)]
    for known in known_collections():
        counts = [
            [getattr(images, part) for images in known.images.values()]
            for part in ("train", "test_normal", "test_anomalous")
        ]
        totals = ["–" if None in parts else str(sum(parts)) for parts in counts]
        truth = ("masks" if known.masks == "decided" else "masks, all but 0") if known.pixel_labels else "image labels"
        licence = re.sub(r".*Attribution-NonCommercial-ShareAlike 4\.0.*", "CC BY-NC-SA 4.0", known.licence)
        rows.append(
            (
                f"[{known.title}]({known.page})",
                f"`{known.name}`",
                str(len(known.images)),
                *totals,
                truth,
                licence or "see its page",
            )
        )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_the_page_shows_the_catalogue():
    shown = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert shown == table()
