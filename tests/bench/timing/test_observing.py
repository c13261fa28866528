"""What is looked at beside the clock."""

import numpy as np
import pytest
import torch
from torch import nn

from bench.timing.inspection import REFERENCES, reference_images
from bench.timing.observing import clock_step_ns, digest, maps_of_references, network_types, tensors_on_cpu

CPU = torch.device("cpu")


def brightness(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    maps = images.float().mean(1)
    return maps, maps.flatten(1).amax(1)


@pytest.mark.parametrize("batch", [1, 2, 3, REFERENCES, 16])
def test_the_fixed_images_are_predicted_in_batches_of_the_size_that_is_timed(batch: int) -> None:
    sizes = []

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(images))
        return brightness(images)

    images = torch.zeros(batch, 3, 8, 12, dtype=torch.uint8)
    maps = maps_of_references(run, images, CPU)
    expected = torch.cat(reference_images((8, 12), torch.uint8))
    assert set(sizes) == {batch}
    assert np.array_equal(maps, brightness(expected)[0].numpy())


def test_a_digest_passes_over_rounding_and_over_nothing_else() -> None:
    maps = np.random.default_rng(0).permutation(1000)[:128].reshape(2, 8, 8).astype(np.float32)
    maps[0, 0, 0] = 1000  # the others are whole thousandths of it
    assert digest(maps) == digest(maps * np.float32(1 + 1e-6))
    assert digest(maps) != digest(maps[::-1])


def test_networks_are_those_that_are_named() -> None:
    module = nn.ModuleDict({"network": nn.Linear(2, 2).half(), "rest": nn.Linear(2, 2)})
    assert network_types(module) == {"float16", "float32"}
    module.networks = ("network",)  # type: ignore[assignment]
    assert network_types(module) == {"float16"}
    assert tensors_on_cpu(module) == ["network.weight", "network.bias", "rest.weight", "rest.bias"]


def test_the_clock_has_steps() -> None:
    assert 0 < clock_step_ns() < 1e6
