"""The rules, and the hash that stands for them."""

from bench.protocol import PROTOCOL, Protocol


def test_a_rule_changes_the_hash() -> None:
    assert Protocol().hash == PROTOCOL.hash
    assert Protocol(validation_fraction=0.2).hash != PROTOCOL.hash


def test_a_fit_obeys_some_of_the_rules() -> None:
    assert Protocol(validation_fraction=0.2).of_fits() != PROTOCOL.of_fits()
    assert Protocol(fpr_limits=(0.1,)).of_fits() == PROTOCOL.of_fits()
    assert PROTOCOL.of_fits().items() < PROTOCOL.as_record().items()
