import numpy as np
import pytest
import torch
from skimage import data

from methods.efficientad import winograd
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import normalise
from methods.efficientad.step import hard_elements, step_loss
from methods.efficientad.teachers import load_teacher


def brute_force(differences, quantile):
    """Mean of all elements that reach the quantile, as Algorithm 1 has it."""
    values = differences.double().flatten().numpy()
    return values[values >= np.quantile(values, quantile)].mean()


@pytest.mark.parametrize("count", [1, 2, 7, 999, 1000, 1001, 1002, 5000, 384 * 56 * 56])
def test_hard_elements_are_those_that_reach_the_quantile(count):
    differences = torch.randn(count, generator=torch.Generator().manual_seed(count)).square()
    found = differences[hard_elements(differences)].double().mean().item()
    assert found == pytest.approx(brute_force(differences, 0.999), rel=1e-12)


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 1.0])
def test_hard_elements_with_ties(quantile):
    differences = torch.tensor([3.0, 1, 1, 2, 2, 2, 0, 3, 2, 1, 3])
    chosen = differences[hard_elements(differences, quantile)]
    threshold = np.quantile(differences.numpy(), quantile)
    assert sorted(chosen.tolist()) == sorted(differences[differences >= threshold].tolist())


def test_constant_differences_are_all_hard():
    assert len(hard_elements(torch.ones(3, 5))) == 15


def algorithm_1(network, image, augmented, penalty, target):
    """Lines 14-38 as they stand: whole passes, whole outputs, a quantile by sorting."""
    student = network.student(image)[:, :384]
    differences = (target - student).square()
    hard = differences >= np.quantile(differences.detach().double().numpy(), 0.999)
    loss = differences[hard].mean()
    if penalty is not None:
        loss = loss + network.student(penalty)[:, :384].square().sum() / student.numel()
    decoded = network.autoencoder(augmented)
    with torch.no_grad():
        augmented_target = (network.teacher(augmented) - network.mean) / network.std
    loss = loss + (augmented_target - decoded).square().mean()
    return loss + (decoded - network.student(augmented)[:, 384:]).square().mean()


@pytest.mark.parametrize(
    ("size", "padding", "with_penalty"),
    [
        ("S", False, True),
        ("S", False, False),
        ("S", True, True),
        pytest.param("M", False, True, marks=pytest.mark.slow),
    ],
)
def test_an_iteration_is_algorithm_1(size, padding, with_penalty):
    torch.manual_seed(0)
    # Without dropout, whose masks depend on the memory format.
    network = EfficientAdNetwork(size, padding=padding).eval()
    network.std.fill_(0.02)  # about that of a random teacher
    image, augmented, penalty = torch.randn(3, 1, 3, 256, 256)
    with torch.no_grad():
        target = network.target(network.teacher(image))
    penalty = penalty if with_penalty else None
    parameters = [*network.student.parameters(), *network.autoencoder.parameters()]

    losses, gradients = [], []
    for loss in (
        lambda: algorithm_1(network, image, augmented, penalty, target),
        lambda: step_loss(network, image, augmented, penalty, target, bf16=False),
    ):
        losses.append(loss())
        gradients.append(torch.autograd.grad(losses[-1], parameters))
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    for literal, lean in zip(*gradients, strict=True):
        assert (literal - lean).norm() <= 1e-3 * literal.norm()


def test_bf16_gradients_are_as_close_to_fp32_with_either_convolution(monkeypatch, tmp_path):
    torch.manual_seed(0)
    network = EfficientAdNetwork("S", padding=False).eval()
    load_teacher(network.teacher, "S", "embedded", tmp_path)
    network.std.fill_(0.5)
    photograph = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None]
    image, augmented, penalty = (
        normalise(photograph[:, :, row : row + 256, column : column + 256])
        for row, column in ((0, 0), (4, 4), (200, 200))
    )
    with torch.no_grad():
        target = network.target(network.teacher(image))
    parameters = list(network.student.parameters())

    def gradients(*, bf16, direct):
        monkeypatch.setattr(winograd, "_has_amx", lambda: direct)
        return torch.autograd.grad(step_loss(network, image, augmented, penalty, target, bf16), parameters)

    fp32 = gradients(bf16=False, direct=False)
    for exact, direct, transformed in zip(
        fp32, gradients(bf16=True, direct=True), gradients(bf16=True, direct=False), strict=True
    ):
        error = (transformed - exact).norm()
        assert error <= 1.2 * (direct - exact).norm()
        assert error <= 0.05 * exact.norm()
