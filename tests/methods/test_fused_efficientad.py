"""The fused form of EfficientAD gives the maps of the networks that it was made of."""

import pytest
import torch
from torch import Tensor

from methods.efficientad.detector import EfficientAdConfig, EfficientAdM, EfficientAdS
from methods.efficientad.fused import FusedEfficientAd
from methods.efficientad.networks import EfficientAdNetwork, MapBorder
from methods.efficientad.pdn import TEACHER_CHANNELS, Size
from methods.errors import MethodError


def network(size: Size, *, padding: bool = False, map_border: MapBorder = "replicate") -> EfficientAdNetwork:
    """With numbers of a normalisation that are not the neutral ones."""
    generator = torch.Generator().manual_seed(0)
    made = EfficientAdNetwork(size, padding=padding, map_border=map_border).eval().requires_grad_(False)
    made.mean.copy_(torch.randn(made.mean.shape, generator=generator))
    made.std.copy_(0.05 + torch.rand(made.std.shape, generator=generator))
    made.quantiles.copy_(torch.tensor([[0.5, 2.0], [0.001, 0.01]]))
    return made


def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("size", ["S", "M"])
def test_teacher_minus_student_and_the_imitation_are_those_of_the_networks(size: Size, grouped: bool) -> None:
    plain = network(size)
    fused = FusedEfficientAd(plain, grouped=grouped)
    with torch.inference_mode():
        prepared = plain.prepare(images()[:1])
        student, of_autoencoder = plain.student(prepared).split(TEACHER_CHANNELS, dim=1)
        difference, imitation = fused.teacher_and_student(prepared)
        expected = plain.target(plain.teacher(prepared)) - student
    assert difference.shape == (1, TEACHER_CHANNELS, 56, 56)
    torch.testing.assert_close(difference, expected, rtol=0, atol=5e-6 * float(expected.abs().max()))
    torch.testing.assert_close(imitation, of_autoencoder, rtol=0, atol=5e-6 * float(of_autoencoder.abs().max()))


def test_what_is_exported_takes_convolutions_as_they_are() -> None:
    fused = FusedEfficientAd(network("S"), grouped=False)
    program = torch.export.export(fused, (images()[:1],))
    operators = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("conv2d" in name for name in operators) == 2 * 3 + 2 + 14
    with torch.inference_mode():
        maps, scores = program.module()(images()[:1])
        expected, expected_scores = fused(images()[:1])
    extent = float(expected.max() - expected.min())
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-4 * extent)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-4 * extent)


@pytest.mark.parametrize(("padding", "map_border"), [(False, "replicate"), (False, "zeros"), (True, "replicate")])
def test_maps_and_scores_are_those_of_the_networks(padding: bool, map_border: MapBorder) -> None:
    plain = network("S", padding=padding, map_border=map_border)
    with torch.inference_mode():
        maps, scores = FusedEfficientAd(plain, grouped=True)(images())
        expected, expected_scores = plain(images())
    extent = float(expected.max() - expected.min())
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-4 * extent)
    torch.testing.assert_close(scores, expected_scores, rtol=0, atol=1e-4 * extent)


def test_groups_leave_fewer_convolutions() -> None:
    plain = network("M")
    counts = [
        sum(
            isinstance(layer, torch.nn.Conv2d)
            for layer in FusedEfficientAd(plain, grouped=grouped).teacher_and_student.modules()
        )
        for grouped in (False, True)
    ]
    assert counts == [12, 8]


def test_the_networks_stay_as_they_are() -> None:
    plain = network("S")
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    fused = FusedEfficientAd(plain, grouped=True)
    fused.autoencoder.to(torch.bfloat16)
    fused.quantiles.zero_()
    after = plain.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_student_that_is_not_shared_cannot_be_fused() -> None:
    plain = EfficientAdNetwork("S", padding=False, shared_student=False)
    with pytest.raises(MethodError, match="shared student"):
        FusedEfficientAd(plain, grouped=False)


def test_detectors_offer_it() -> None:
    detector = EfficientAdS(EfficientAdConfig())
    detector.fitted = network("S")
    assert isinstance(detector.fused_module(), FusedEfficientAd)
    with pytest.raises(RuntimeError, match="not been fitted"):
        EfficientAdM(EfficientAdConfig()).fused_module()
