import copy

import numpy as np
import pytest
import torch
from thin_efficientad import features_by_one_convolution, noise, thin_network
from torch import nn

from benchmarks.efficientad_step import count_operators
from methods.common.seeding import reproducible
from methods.detector import FitContext, ImageSet
from methods.efficientad import fast_step, step
from methods.efficientad.networks import EfficientAdNetwork
from methods.efficientad.pdn import TEACHER_CHANNELS
from methods.efficientad.step import HARD_QUANTILE, choose_step, hard_elements
from methods.efficientad.training import Training, TrainingOptions
from methods.errors import MethodError


@pytest.mark.parametrize("count", [1, 2, 7, 999, 1000, 1001, 1002, 5000, 384 * 56 * 56])
def test_hard_elements_are_those_that_reach_the_quantile(count):
    differences = torch.randn(count, generator=torch.Generator().manual_seed(count)).square()
    reach = differences.double().numpy() >= np.quantile(differences.double().numpy(), HARD_QUANTILE)
    assert hard_elements(differences).tolist() == np.flatnonzero(reach).tolist()


@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 1.0])
def test_of_tied_elements_the_number_that_untied_ones_would_have_is_hard(quantile):
    tied = torch.tensor([3.0, 1, 1, 2, 2, 2, 0, 3, 2, 1, 3])
    untied = tied + torch.arange(11) / 100
    reach = untied.numpy() >= np.quantile(untied.numpy(), quantile)
    assert sorted(tied[hard_elements(tied, quantile)].tolist()) == sorted(tied[torch.from_numpy(reach)].tolist())


def small_problem(size, *, padding, side, hard_share=0.001, **options):
    """A network and its four inputs, by name, all float64, for images of ``side`` x ``side`` pixels.

    As large a share of the target lies far from the student's output and the rest near it, so which elements are hard
    does not depend on rounding.
    """
    torch.manual_seed(0)
    network = EfficientAdNetwork(size, padding=padding, **options).double()
    grid = side // 4 if padding else side // 4 - 8
    network.autoencoder = features_by_one_convolution(grid).double()
    network.std.fill_(0.02)  # about that of a random teacher
    image, augmented, penalty = torch.randn(3, 1, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        output = network.student(image)[:, :TEACHER_CHANNELS]
    offsets = 0.01 * torch.rand(output.shape, dtype=torch.float64)
    hard = torch.randperm(offsets.numel())[: int(offsets.numel() * hard_share) + 1]
    offsets.view(-1)[hard] = 1 + torch.rand(len(hard), dtype=torch.float64)
    inputs = {"image": image, "augmented": augmented, "penalty": penalty, "target": output + offsets}
    return network, {name: tensor.contiguous(memory_format=torch.channels_last) for name, tensor in inputs.items()}


def loss_and_gradients(step_loss, network, inputs, **options):
    parameters = [*network.student.parameters(), *network.autoencoder.parameters()]
    loss = step_loss(network, **inputs, precision="fp32", **options)
    return [loss.detach(), *torch.autograd.grad(loss, parameters)]


def algorithm_1(network, image, augmented, penalty, target, precision, p_hard=0.999):
    """Lines 14-38 as they stand: whole passes, whole outputs, a quantile by sorting."""
    student = network.student(image)[:, :384]
    differences = (target - student).square()
    hard = differences >= np.quantile(differences.detach().numpy(), p_hard)
    loss = differences[hard].mean()
    if penalty is not None:
        loss = loss + network.student(penalty)[:, :384].square().sum() / student.numel()
    decoded = network.autoencoder(augmented)
    with torch.no_grad():
        augmented_target = (network.teacher(augmented) - network.mean) / network.std
    loss = loss + (augmented_target - decoded).square().mean()
    return loss + (decoded - network.student(augmented)[:, 384:]).square().mean()


@pytest.mark.slow
@pytest.mark.parametrize("step_loss", [step.step_loss, fast_step.step_loss], ids=["reference", "fast"])
@pytest.mark.parametrize(
    ("size", "padding", "with_penalty"),
    [
        ("S", False, True),
        ("S", False, False),
        ("S", True, True),
        pytest.param("M", False, True, marks=pytest.mark.slow),
    ],
)
def test_an_iteration_is_algorithm_1(size, padding, with_penalty, step_loss):
    """In float64, where nothing hides behind rounding."""
    network, inputs = small_problem(size, padding=padding, side=48 if padding else 64)
    if not with_penalty:
        inputs["penalty"] = None
    expected = loss_and_gradients(algorithm_1, network, inputs)
    found = loss_and_gradients(step_loss, network, inputs)
    for literal, other in zip(expected, found, strict=True):
        # Losses are float32 whatever the networks are.
        assert (literal - other).norm() <= 1e-5 * literal.norm()


@pytest.mark.parametrize("step_loss", [step.step_loss, fast_step.step_loss], ids=["reference", "fast"])
@pytest.mark.parametrize("p_hard", [0.0, 0.9])
def test_the_hard_feature_loss_takes_what_reaches_p_hard(p_hard, step_loss):
    """Section 3.2: with 0, the mean of all squared differences, which is the loss of S-T."""
    network, inputs = small_problem("S", padding=False, side=48, hard_share=0.1)
    expected = loss_and_gradients(algorithm_1, network, inputs, p_hard=p_hard)
    for literal, other in zip(expected, loss_and_gradients(step_loss, network, inputs, p_hard=p_hard), strict=True):
        assert (literal - other).norm() <= 1e-5 * literal.norm()
    if p_hard == 0:
        whole = inputs["target"] - network.student(inputs["image"])[:, :TEACHER_CHANNELS]
        without = loss_and_gradients(step_loss, network, {**inputs, "target": inputs["target"] - whole.detach()})
        assert (expected[0] - without[0]).item() == pytest.approx(whole.square().mean().item(), rel=1e-4)


def test_separate_students_are_trained_by_one_loss_each():
    """Before Table 4's row "Shared student": no part of either is in the other's loss."""
    network, inputs = small_problem("S", padding=False, side=48, shared_student=False)
    expected = loss_and_gradients(algorithm_1, network, inputs)
    found = loss_and_gradients(step.step_loss, network, inputs)
    for literal, other in zip(expected, found, strict=True):
        assert (literal - other).norm() <= 1e-5 * literal.norm()
    on_others = {**inputs, "target": inputs["target"] + 1, "penalty": inputs["image"]}
    changed = loss_and_gradients(step.step_loss, network, on_others)
    of_teacher = len(list(network.student.of_teacher.parameters()))
    assert not any(torch.equal(a, b) for a, b in zip(found[1 : 1 + of_teacher], changed[1:], strict=False))
    assert all(torch.equal(a, b) for a, b in zip(found[1 + of_teacher :], changed[1 + of_teacher :], strict=True))


def without_kinks(network, images):
    """Shift each hidden channel so far that a ReLU passes all of it or nothing, in turn.

    Where a value is as good as zero, rounding decides whether a ReLU passes its gradient: such errors have nothing to
    do with how a convolution is computed.
    """
    features = images
    for layer in network.student[:-1]:
        if isinstance(layer, nn.Conv2d):
            extent = layer(features).abs().amax((0, 2, 3))
            sign = torch.ones_like(extent)
            sign[3::4] = -1
            layer.bias.data += 1.5 * sign * extent
        features = layer(features)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "padding"), [("S", False), ("S", True), pytest.param("M", False, marks=pytest.mark.slow)]
)
def test_the_fast_step_loses_little_more_to_rounding_than_the_reference(size, padding):
    network, inputs = small_problem(size, padding=padding, side=64)
    with torch.no_grad():
        without_kinks(network, torch.cat([inputs[name] for name in ("image", "augmented", "penalty")]))
    exact = loss_and_gradients(algorithm_1, network, inputs)
    single = copy.deepcopy(network).float()
    single_inputs = {name: tensor.float() for name, tensor in inputs.items()}
    plain = loss_and_gradients(step.step_loss, single, single_inputs)
    fast = loss_and_gradients(fast_step.step_loss, single, single_inputs)
    for of_exact, of_plain, of_fast in zip(exact, plain, fast, strict=True):
        # Rounding the exact result alone costs as much as the second term.
        inevitable = (of_plain - of_exact).norm() + torch.finfo(torch.float32).eps * of_exact.norm()
        assert (of_fast - of_exact).norm() <= 8 * inevitable


@pytest.mark.parametrize("step_loss", [step.step_loss, fast_step.step_loss], ids=["reference", "fast"])
def test_bf16_is_of_the_networks_only(step_loss):
    network = thin_network(padding=True, autoencoder=False)
    image, augmented, penalty = network.prepare(noise(3, side=64)).split(1)
    network.autoencoder = features_by_one_convolution(16)
    with torch.no_grad():
        target = network.target(network.teacher(image))
    inputs = {"image": image, "augmented": augmented, "penalty": penalty, "target": target}
    types = set()
    network.student.register_forward_hook(lambda module, images, output: types.add(output.dtype))
    network.autoencoder.register_forward_hook(lambda module, images, output: types.add(output.dtype))
    single, half = (step_loss(network, **inputs, precision=precision) for precision in ("fp32", "bf16"))
    assert torch.bfloat16 in types
    assert half.dtype == torch.float32
    assert half != single
    torch.testing.assert_close(half, single, rtol=0.02, atol=0)
    half.backward()
    assert {parameter.grad.dtype for parameter in network.student.parameters()} == {torch.float32}


def test_a_cpu_takes_the_fast_step_and_other_devices_the_reference():
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert [choose_step("auto", device) for device in (cpu, gpu)] == ["fast", "reference"]
    assert choose_step("reference", cpu) == "reference"
    assert choose_step("fast", cpu) == "fast"
    with pytest.raises(MethodError, match=r"the device is cuda:0\n.*auto and reference"):
        choose_step("fast", gpu)


def test_a_reference_step_and_inference_read_no_value_back():
    """On the meta device there are no values: whoever asks for one gets an error instead."""
    with torch.device("meta"):
        network = EfficientAdNetwork("S", padding=False)
        image = network.prepare(torch.empty(1, 3, 256, 256, dtype=torch.uint8))
        target = torch.empty(1, TEACHER_CHANNELS, 56, 56)
        loss = step.step_loss(network, image, image, image, target, "fp32")
        loss.backward()
        maps, scores = network.eval()(torch.empty(2, 3, 256, 256, dtype=torch.uint8))
    assert (maps.shape, scores.shape) == ((2, 256, 256), (2,))
    for read in (loss.item, maps.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()


# What another PyTorch counts may be a little different; more means that something has crept in.
OPERATORS_OF_A_STEP = 178
OPERATORS_OF_AN_INFERENCE = 76


@pytest.mark.slow
def test_operators_are_no_more_than_they_were():
    """Of loss and backward pass of the reference step and of one inference: on a GPU, each is at least a kernel."""
    network = thin_network()
    levels = noise(1)
    image = network.prepare(levels)
    with torch.no_grad():
        target = network.target(network.teacher(image))
    of_step = count_operators(lambda: step.step_loss(network, image, image, image, target, "fp32").backward())
    network.eval().requires_grad_(False)
    of_inference = count_operators(lambda: network(levels))
    assert of_step.waiting == of_inference.waiting == 0
    assert 0.8 * OPERATORS_OF_A_STEP < of_step.computing <= OPERATORS_OF_A_STEP
    assert 0.8 * OPERATORS_OF_AN_INFERENCE < of_inference.computing <= OPERATORS_OF_AN_INFERENCE


class Photographs:
    identity = "photographs (5 images, 0123456789ab)"

    def images(self, size, *, center_crop=None, limit=None, seed=0):
        return ImageSet(noise(5, seed))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_no_step_waits():
    device = torch.device("cuda")
    options = TrainingOptions(1e-4, 1e-5, "fp32", choose_step("auto", device))
    context = FitContext(0, device, photographs=Photographs())
    with reproducible(0, device):
        network = EfficientAdNetwork("S", padding=False).to(device)
        with Training(network, ImageSet(noise(3)), context, steps=10, options=options) as training:
            training.step()  # takes the photographs and makes the optimiser's moments
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(4):
                    training.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
