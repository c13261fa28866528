"""What ``bench methods`` says of each method, and the cards in the documentation."""

from pathlib import Path

import pytest

from bench.commands.method_cards import card, licences_of, needs_of, status_of
from methods.registry import BUILT_IN, load_method
from methods.weights.catalogue import weight_files

CARDS = Path(__file__).parents[3] / "docs/methods"


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_card_is_up_to_date(name: str) -> None:
    """Each builds the networks of the paper's configuration, to count their parameters."""
    assert (CARDS / f"{name}.md").read_text() == card(name), "run bench methods --cards docs/methods"


def test_there_is_a_card_for_each_method_and_no_other() -> None:
    assert {path.stem for path in CARDS.glob("*.md")} >= set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_says_what_it_is_and_needs(name: str) -> None:
    method = load_method(name)
    assert status_of(name, method) in (
        "reproduced",
        "faithful, not yet reproduced",
        "reimplementation, details of the paper unknown",
    )
    assert all(licences_of(method))
    for config in (method.Config(), *(method.Config(**options) for options in method.presets.values())):
        assert set(method.weight_files(config)) <= set(weight_files())


def test_needs_are_named() -> None:
    assert needs_of(load_method("efficientad_s")) == [
        "weights efficientad_teachers",
        "held-out normal images",
        "photographs",
    ]
    assert needs_of(load_method("patchcore")) == ["weights wide_resnet101_2"]
