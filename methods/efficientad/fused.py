"""EfficientAD for inference alone: what teacher and student compute alike is computed at once, with the same maps.

Six steps, all exact but for rounding; what the paper's Algorithm 2 reads like stands in :mod:`.networks`:

- The last rows and columns of an image reach no output of unpadded networks, whose poolings drop what is left over.
- First convolutions read the same image; those after them, being of equal shape, are two groups of one. This is for
  GPUs, which it spares kernels: a CPU takes longer for groups than for one convolution after the other.
- The normalisation of the teacher's output is part of its last convolution.
- The difference of teacher and student is one convolution of both, so that it is summed up before it is rounded.
- Both maps are combined on the feature grid and resized once: normalising and averaging are affine, resizing is linear
  with weights that sum to 1, so they commute.
- On a CPU, merged convolutions too take a quarter of the multiplications (:mod:`.winograd`).

Not merged is the normalisation of images with the first convolution: in half precision that costs accuracy, and the
autoencoder pads normalised images.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from methods.common.precision import run_network
from methods.efficientad.networks import EfficientAdNetwork, SeparateStudents, combined_map
from methods.efficientad.pdn import TEACHER_CHANNELS
from methods.efficientad.winograd import take_fewer_multiplications
from methods.errors import MethodError

USED = 253
"""Rows and columns, of 256, that the outputs of unpadded networks depend on: 250, 125, 122, 61, 59 and 56 later."""


class TeacherAndStudent(nn.Module):
    """A teacher and the student that it shares with an autoencoder.

    Args:
        network: Trained.
        grouped: Whether convolutions of equal shape become one.

    Attributes:
        together: Layers of equal shape, of both at once; none unless grouped.
        teacher: The teacher's layers after them, but for its last.
        student: Likewise.
        difference: Last convolution of both.
        imitation: The student's last convolution, as far as it imitates the autoencoder.
    """

    def __init__(self, network: EfficientAdNetwork, *, grouped: bool) -> None:
        super().__init__()
        assert isinstance(network.student, nn.Sequential)
        *teacher, last_of_teacher = network.teacher
        *student, last_of_student = network.student
        alike = _alike(teacher, student) if grouped else 0
        self.used = None if network.padding else USED
        self.together = nn.Sequential(*_together(teacher[:alike], student[:alike]))
        self.teacher = deepcopy(nn.Sequential(*teacher[alike:]))
        self.student = deepcopy(nn.Sequential(*student[alike:]))
        target, target_bias = _parameters(last_of_teacher)
        mean, std = (one.double().view(-1, 1, 1, 1) for one in (network.mean, network.std))
        target, target_bias = target / std, (target_bias - mean.view(-1)) / std.view(-1)
        weight, bias = (one.split(TEACHER_CHANNELS) for one in _parameters(last_of_student))
        self.difference = _convolution(torch.cat([target, -weight[0]], dim=1), target_bias - bias[0])
        self.imitation = _convolution(weight[1], bias[1])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 3, 256, 256) to features on the feature grid (B, 384, h, w).

        Returns:
            Normalised features of the teacher minus the student's, and those by which it imitates the autoencoder.
        """
        used = images if self.used is None else images[..., : self.used, : self.used]
        of_teacher, of_student = self.together(used).chunk(2, dim=1) if len(self.together) else (used, used)
        of_student = self.student(of_student)
        hidden = torch.cat([self.teacher(of_teacher), of_student], dim=1)
        return self.difference(hidden), self.imitation(of_student)


class FusedEfficientAd(nn.Module):
    """A fitted :class:`methods.efficientad.networks.EfficientAdNetwork` with the same maps in fewer operations.

    Args:
        network: Fitted; it is not changed.
        grouped: Whether convolutions of equal shape become one, which is faster on a GPU and slower on a CPU.

    Raises:
        MethodError: Its student is not shared: there is nothing to be computed at once.
    """

    networks = ("teacher_and_student", "autoencoder")
    quantiles: Tensor

    def __init__(self, network: EfficientAdNetwork, *, grouped: bool) -> None:
        super().__init__()
        if isinstance(network.student, SeparateStudents):
            raise MethodError("the fused form is that of a shared student, and shared_student=False was given")
        self.teacher_and_student = TeacherAndStudent(network, grouped=grouped)
        self.autoencoder = deepcopy(network.autoencoder)
        self.normalise, self.resize = deepcopy(network.normalise), deepcopy(network.resize)
        self.register_buffer("quantiles", network.quantiles.clone())
        self.eval().requires_grad_(False)
        nn.utils.convert_conv2d_weight_memory_format(self, torch.channels_last)
        take_fewer_multiplications(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """As the network's: images (B, 3, 256, 256) to float32 maps (B, 256, 256) and scores (B,)."""
        prepared = self.normalise(images).contiguous(memory_format=torch.channels_last)
        difference, imitation = run_network(self.teacher_and_student, prepared)
        logical = run_network(self.autoencoder, prepared) - imitation
        maps = torch.stack([difference.square().mean(1), logical.square().mean(1)])
        combined = self.resize(combined_map(maps, self.quantiles))
        return combined, combined.flatten(1).amax(1)


def _alike(teacher: Sequence[nn.Module], student: Sequence[nn.Module]) -> int:
    """How many layers, from the first, have the same shape in both."""
    shapes = ([getattr(getattr(layer, "weight", None), "shape", None) for layer in both] for both in (teacher, student))
    return next((place for place, pair in enumerate(zip(*shapes, strict=True)) if pair[0] != pair[1]), len(teacher))


def _together(teacher: Sequence[nn.Module], student: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """Layers of both: the first convolution sees one image, each after it two groups of channels."""
    groups = 1
    for one, other in zip(teacher, student, strict=True):
        if isinstance(one, nn.Conv2d):
            weights, biases = zip(_parameters(one), _parameters(other), strict=True)
            yield _convolution(torch.cat(weights), torch.cat(biases), groups, one.padding)
            groups = 2
        else:
            yield deepcopy(one)


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution, float64: what is merged is rounded once."""
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return layer.weight.double(), layer.bias.double()


def _convolution(weight: Tensor, bias: Tensor, groups: int = 1, padding: tuple[int, ...] | str = (0, 0)) -> nn.Conv2d:
    outputs, inputs, height, width = weight.shape
    layer = nn.Conv2d(inputs * groups, outputs, (height, width), groups=groups, padding=padding, device=weight.device)  # type: ignore[arg-type]
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
