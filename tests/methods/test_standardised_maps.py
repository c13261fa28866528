import torch

from methods.common.standardised_maps import StandardisedSum
from methods.detector import FitContext, ImageSet


def test_maps_are_standardised_by_all_pixels_of_normal_images_and_added():
    images = torch.randint(0, 256, (5, 3, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    progress = []
    combine = StandardisedSum(2)
    context = FitContext(0, progress=progress.append)
    combine.measure(lambda batch: batch[:, :2].float(), ImageSet(images), context)
    assert [(one.done, one.total) for one in progress] == [(number, 5) for number in range(1, 6)]
    literal = torch.zeros(5, 6, 7, dtype=torch.float64)
    for channel in range(2):
        values = images[:, channel].double()
        literal += (values - values.mean()) / values.std(correction=0)
    torch.testing.assert_close(combine(images[:, :2].float()).double(), literal, rtol=1e-5, atol=1e-5)


def test_constant_maps_leave_finite_ones():
    combine = StandardisedSum(2)
    images = ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    combine.measure(lambda batch: batch[:, :2].float(), images, FitContext(0))
    assert torch.equal(combine(torch.zeros(1, 2, 4, 4)), torch.zeros(1, 4, 4))
