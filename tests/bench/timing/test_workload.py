"""The images that are timed."""

import pytest
import torch

from bench.timing.passes import Passes, StreamedPasses
from bench.timing.workload import IMAGES, make_batches

CPU = torch.device("cpu")


@pytest.mark.parametrize(("batch", "count"), [(1, IMAGES), (16, IMAGES // 16), (48, 2), (128, 2)])
def test_there_are_enough_images_and_no_two_alike(batch: int, count: int) -> None:
    batches = make_batches(batch, (8, 12), torch.uint8, pinned=False, seed=0)
    images = torch.cat(batches)
    assert [len(one) for one in batches] == [batch] * count
    assert images.shape[1:] == (3, 8, 12)
    assert len(images.flatten(1).unique(dim=0)) == len(images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floating_images_are_those_of_levels(dtype: torch.dtype) -> None:
    levels = make_batches(4, (8, 8), torch.uint8, pinned=False, seed=3)
    floating = make_batches(4, (8, 8), dtype, pinned=False, seed=3)
    for one, other in zip(levels, floating, strict=True):
        assert other.dtype == dtype
        assert torch.equal(other, (one.float() / 255).to(dtype))


def test_each_pass_takes_the_next_batch_and_then_the_first_again() -> None:
    seen: list[torch.Tensor] = []

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(images)
        return images.float().mean(1), images.float().flatten(1).amax(1)

    batches = make_batches(32, (8, 8), torch.uint8, pinned=False, seed=0)
    passes = Passes(run, batches, CPU, "host to device")
    for _ in range(3):
        passes()
    assert [torch.equal(images, batches[number % 2]) for number, images in enumerate(seen)] == [True] * 3
    assert passes.output is not None
    assert torch.equal(passes.output[0], batches[0].float().mean(1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_stream_loses_and_mixes_up_no_images() -> None:
    gpu = torch.device("cuda", 0)
    batches = make_batches(16, (64, 64), torch.uint8, pinned=True, seed=0)
    seen = []

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        torch.cuda._sleep(1_000_000)  # the device is behind the host
        means = images.float().mean((1, 2, 3))
        seen.append(means)
        return images.float().mean(1), means

    passes = StreamedPasses(run, batches, gpu)
    for _ in range(12):
        passes()
    torch.cuda.synchronize(gpu)
    for number, means in enumerate(seen):
        expected = batches[number % len(batches)].float().mean((1, 2, 3))
        torch.testing.assert_close(means.cpu(), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("region", "where"), [("host to device", "cuda"), ("host to host", "cpu"), ("on device", "cuda")]
)
def test_the_region_decides_where_maps_end(region: str, where: str) -> None:
    gpu = torch.device("cuda", 0)
    batches = make_batches(2, (8, 8), torch.uint8, pinned=True, seed=0)
    passes = Passes(lambda images: (images.float().mean(1), images.float().flatten(1).amax(1)), batches, gpu, region)
    passes()
    assert passes.output is not None
    assert passes.output[0].device.type == where
