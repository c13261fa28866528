import threading

import pytest

from metrics.inputs import share_out


def test_the_error_of_the_first_bad_image_is_raised_even_if_it_comes_last():
    second_failed = threading.Event()

    def worker(index):
        if index == 1:
            second_failed.set()
            raise ValueError("second")
        assert second_failed.wait(30)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        share_out(2, [worker, worker])


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_is_handed_out_after_an_error(workers):
    seen = []

    def worker(index):
        seen.append(index)
        raise ValueError(index)

    with pytest.raises(ValueError, match="0"):
        share_out(100, [worker] * workers)
    assert len(seen) <= workers
