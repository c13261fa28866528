import pytest
import torch
from torch import nn

from methods.common.frozen_features import FrozenFeatures
from methods.common.resident_images import ResidentImages
from methods.detector import ImageSet, Progress

CPU = torch.device("cpu")
BYTES_PER_IMAGE = (2 * 8 * 8 + 4 * 4 * 4) * 4


class Levels(nn.Module):
    """Two strided convolutions; counts the images that it has seen."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 2, 2, stride=2), nn.Conv2d(2, 4, 2, stride=2)
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        fine = self.fine((images / 255).contiguous(memory_format=torch.channels_last))
        return [fine, self.coarse(fine)]


@pytest.fixture
def levels():
    torch.manual_seed(0)
    return Levels().to(memory_format=torch.channels_last)


def images(count=5):
    generator = torch.Generator().manual_seed(count)
    return ImageSet(torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("room_for", [0, 1, 3, 5, 100])
def test_features_are_the_same_kept_or_computed(room_for, batch_size, levels):
    features = FrozenFeatures(levels, images(), CPU, room_for * BYTES_PER_IMAGE, batch_size=batch_size)
    assert len(features) == 5
    assert features.kept == min(room_for, 5)
    with torch.no_grad():
        expected = levels(images()[:])
    for chosen in ([0], [4, 0, 0], [2, 1], [4]):
        before = levels.seen
        found = features[chosen]
        assert (levels.seen == before) == (max(chosen) < room_for)
        for level, of_all in zip(found, expected, strict=True):
            assert not level.requires_grad
            assert level.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(level, of_all[chosen])


def test_no_more_is_computed_than_is_kept_unless_somebody_looks(levels):
    FrozenFeatures(levels, images(), CPU, 2 * BYTES_PER_IMAGE, batch_size=1)
    assert levels.seen == 2
    observed = []
    FrozenFeatures(levels, images(), CPU, 2 * BYTES_PER_IMAGE, batch_size=2, observe=observed.append)
    assert [len(fine) for fine, _ in observed] == [2, 2, 1]


def test_features_kept_are_not_changed_by_who_takes_them(levels):
    features = FrozenFeatures(levels, images(), CPU, 5 * BYTES_PER_IMAGE)
    before = [level.clone() for level in features[[1]]]
    for level in features[[1]]:
        level.zero_()
    assert all(torch.equal(level, other) for level, other in zip(features[[1]], before, strict=True))


def test_progress_counts_images(levels):
    reports = []
    FrozenFeatures(levels, images(), CPU, 5 * BYTES_PER_IMAGE, batch_size=2, progress=reports.append)
    assert reports == [Progress("features", done, 5) for done in (2, 4, 5)]


def test_resident_images_are_those_of_the_set():
    chosen = ImageSet(images()[:], [3, 1])
    resident = ResidentImages(chosen, CPU, budget=0)
    assert len(resident) == 2
    assert torch.equal(resident[0], images()[3])


@pytest.mark.parametrize(("budget", "held"), [(5 * 3 * 16 * 16, True), (5 * 3 * 16 * 16 - 1, False)])
def test_a_device_holds_images_within_the_budget(budget, held):
    """Whatever holds them, what comes out is on the device."""
    device = torch.device("meta")
    resident = ResidentImages(images(), device, budget)
    with torch.profiler.profile() as profile:
        image = resident[2]
    assert (image.device, image.shape, image.dtype) == (device, (3, 16, 16), torch.uint8)
    copied = any(event.key == "aten::_to_copy" for event in profile.key_averages())
    assert copied != held
