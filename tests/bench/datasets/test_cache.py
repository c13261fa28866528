"""What costs time to find is found once."""

import logging
from dataclasses import replace

import pytest

from bench.datasets.cache import Cache


@pytest.fixture
def finds():
    """Counts how often it is asked; finds the count so far."""
    asked = []

    def find():
        asked.append(None)
        return {"number": len(asked)}

    return find


def test_what_was_found_is_remembered_under_its_key(tmp_path, finds):
    cache = Cache(tmp_path)
    assert cache.remembered("things", "a", finds) == {"number": 1}
    assert Cache(tmp_path).remembered("things", "a", finds) == {"number": 1}
    assert cache.remembered("things", "b", finds) == {"number": 2}
    assert cache.remembered("others", "a", finds) == {"number": 3}


def test_nothing_is_remembered_where_the_cache_is_off(tmp_path, finds):
    cache = replace(Cache(tmp_path), enabled=False)
    assert [cache.remembered("things", "a", finds)["number"] for _ in range(2)] == [1, 2]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", '{"other": 1}', "\0"])
def test_a_damaged_entry_is_found_again(tmp_path, finds, content):
    cache = Cache(tmp_path)
    cache.remembered("things", "a", finds)
    (tmp_path / "things/a.json").write_text(content)
    assert [cache.remembered("things", "a", finds)["number"] for _ in range(2)] == [2, 2]


def test_a_cache_that_cannot_be_written_costs_time_and_no_run(tmp_path, finds, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert Cache(tmp_path / "file").remembered("things", "a", finds) == {"number": 1}
    assert "cannot remember things" in caplog.text


def test_an_error_of_what_finds_is_not_taken_for_a_damaged_entry(tmp_path):
    def fail():
        raise ValueError("damaged image")

    with pytest.raises(ValueError, match="damaged image"):
        Cache(tmp_path).remembered("things", "a", fail)
