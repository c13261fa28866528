"""Sharing the machine out."""

from bench.machine.devices import choose_slots, usable_cores


def test_workers_share_the_cores() -> None:
    slots = choose_slots("cpu", 2)
    assert [slot.device for slot in slots] == ["cpu", "cpu"]
    assert all(slot.threads == max(1, usable_cores() // 2) for slot in slots)


def test_threads_are_shared_out_unless_stated() -> None:
    assert {slot.threads for slot in choose_slots("cpu", 2, 3)} == {3}
