import threading
import time

import numpy as np
import pytest
import torch

from methods.detector import ImageSet
from methods.efficientad.penalty import PenaltyImages
from methods.errors import MethodError

CPU = torch.device("cpu")


class Folder:
    """Photographs of one colour each: the value says which one it is."""

    identity = "folder"

    def __init__(self, count):
        self.count = count
        self.choices = []
        self.read = threading.Semaphore(0)

    def images(self, size, *, center_crop=None, limit=None, seed=0):
        assert (size, center_crop) == ((512, 512), (256, 256))
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed))[:limit]
        self.choices.append((limit, seed))
        self.read.release()
        return ImageSet(order.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, *center_crop))


class Coloured(Folder):
    def images(self, size, *, center_crop=None, limit=None, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return ImageSet(torch.randint(0, 256, (4, 3, 2, 2), generator=generator, dtype=torch.uint8))


def drawn(folder, count, *, held=None, seed=0):
    """So many draws, as the training makes them."""
    generator = torch.Generator().manual_seed(seed)
    options = {} if held is None else {"held": held}
    penalties = PenaltyImages(folder, seed, CPU, count, **options)
    try:
        return [penalties.draw(generator) for _ in range(count)]
    finally:
        penalties.close()


def one_after_another(folder, count, held, seed):
    """What is drawn, without a thread."""
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        if number % held == 0:
            part = seed * 1_000_003 + number // held
            images = folder.images((512, 512), center_crop=(256, 256), limit=held, seed=part)
        image = images[int(torch.randint(len(images), (), generator=generator))]
        gray = float(torch.rand((), generator=generator)) < 0.3
        yield rgb_to_grayscale(image, num_output_channels=3) if gray else image


def test_images_come_from_the_whole_folder():
    images = drawn(Folder(5), 60)
    assert {int(image[0, 0, 0]) for image in images} == set(range(5))
    assert all(image.shape == (3, 256, 256) and image.dtype == torch.uint8 for image in images)


def test_three_in_ten_are_gray():
    gray = [bool((image[0] == image[1]).all()) for image in drawn(Coloured(4), 400)]
    assert 0.2 < np.mean(gray) < 0.4


@pytest.mark.parametrize("seed", [0, 3])
def test_a_large_folder_is_read_in_parts_that_the_seed_decides(seed):
    folder = Folder(200)
    images = drawn(folder, 18, held=4, seed=seed)
    for image, expected in zip(images, one_after_another(Folder(200), 18, 4, seed), strict=True):
        assert torch.equal(image, expected)
    assert folder.choices == [(4, seed * 1_000_003 + choice) for choice in range(5)]


@pytest.mark.parametrize(("draws", "choices"), [(1, 1), (4, 1), (5, 2), (8, 2)])
def test_no_more_is_read_than_will_be_drawn(draws, choices):
    folder = Folder(200)
    drawn(folder, draws, held=4)
    assert len(folder.choices) == choices


def test_a_small_folder_is_read_once():
    folder = Folder(3)
    drawn(folder, 20, held=4)
    assert len(folder.choices) == 1


def test_the_next_part_is_read_before_it_is_wanted():
    folder = Folder(200)
    penalties = PenaltyImages(folder, 0, CPU, draws=8, held=4)
    try:
        penalties.draw(torch.Generator())
        assert all(folder.read.acquire(timeout=60) for _ in range(2))
    finally:
        penalties.close()


def test_no_thread_is_left_behind():
    before = threading.active_count()
    penalties = PenaltyImages(Folder(200), 0, CPU, draws=8, held=4)
    penalties.draw(torch.Generator())
    assert threading.active_count() > before
    penalties.close()
    assert threading.active_count() == before


def test_an_empty_folder_is_an_error():
    with pytest.raises(MethodError, match="no photographs for the pretraining penalty in folder"):
        drawn(Folder(0), 1)


def test_what_cannot_be_read_is_an_error_of_the_draw_that_needs_it():
    class Damaged(Folder):
        def images(self, size, **options):
            if len(self.choices) == 1:
                time.sleep(0.01)
                raise OSError("photograph 7 is damaged")
            return super().images(size, **options)

    generator = torch.Generator().manual_seed(0)
    penalties = PenaltyImages(Damaged(200), 0, CPU, draws=8, held=4)
    try:
        for _ in range(4):
            penalties.draw(generator)
        with pytest.raises(OSError, match="photograph 7 is damaged"):
            penalties.draw(generator)
    finally:
        penalties.close()
