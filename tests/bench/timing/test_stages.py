"""What the parts of a pass take: arithmetic by injected moments, and parts of real detectors."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from bench.timing.stages import BETWEEN, POST, PREPROCESSING, HostMarks, durations, make_marks, parts_of, time_stages
from bench.timing.workload import make_batches
from methods.common.memory_bank import PatchDistances
from methods.common.nearest import NearestSearch, rows
from methods.efficientad.networks import EfficientAdNetwork
from methods.uninformed_students import UninformedStudents

CPU = torch.device("cpu")


class Clock:
    """A clock that work moves on."""

    def __init__(self) -> None:
        self.milliseconds = 0.0

    def now(self) -> int:
        return round(1e6 * self.milliseconds)


class Work(nn.Module):
    """A network that takes some time."""

    def __init__(self, clock: Clock, milliseconds: float) -> None:
        super().__init__()
        self.clock, self.milliseconds = clock, milliseconds
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        self.clock.milliseconds += self.milliseconds
        return images * self.weight


class Bank(nn.Module):
    """2 ms before, a backbone of 3, 0.5, a search of no time in the model's clock, a head of 4, and 1 ms after."""

    networks = ("features.backbone.network", "head")

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.features = nn.ModuleDict({"backbone": nn.ModuleDict({"network": Work(clock, 3.0)})})
        self.search = NearestSearch()
        self.head = Work(clock, 4.0)
        self.register_buffer("bank", torch.rand(5, 3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        self.clock.milliseconds += 2.0
        features = self.get_submodule("features.backbone.network")(images.float())
        self.clock.milliseconds += 0.5
        bank = self.get_buffer("bank")
        distances = self.search(rows(features), bank, bank.square().sum(1))
        for _ in range(2):
            distances = self.head(distances)
        self.clock.milliseconds += 1.0
        maps = distances.view(len(images), *images.shape[2:])
        return maps, maps.flatten(1).amax(1)


def test_the_parts_make_up_the_pass() -> None:
    clock = Clock()
    batches = make_batches(1, (4, 4), torch.uint8, pinned=False, seed=0)
    stages = time_stages(Bank(clock), batches, CPU, HostMarks(clock.now))
    assert stages.passes == 1000
    assert {part.name: part.p50 for part in stages.parts} == {
        PREPROCESSING: 2.0,
        "backbone": 3.0,
        "search": 0.0,
        "head": 8.0,  # called twice
        BETWEEN: 0.5,
        POST: 1.0,
    }
    assert all(part.p99 == part.p50 for part in stages.parts)


def test_transfers_are_parts_of_their_own() -> None:
    calls = [("teacher", 6.0, 9.0), ("student", 9.5, 12.0)]
    stages = durations((0.0, 5.0, 14.0, 15.0), calls, lambda start, end: end - start, transfers=True)
    assert stages == {
        "transfer to device": 5.0,
        "preprocessing": 1.0,
        "teacher": 3.0,
        "student": 2.5,
        "between stages": 0.5,
        "post": 2.0,
        "transfer back": 1.0,
    }
    assert sum(stages.values()) == 15.0
    assert [*stages][:: len(stages) - 1] == ["transfer to device", "transfer back"]


def test_a_module_without_parts_is_one() -> None:
    stages = durations((0.0, 0.0, 3.0, 3.0), [], lambda start, end: end - start, transfers=False)
    assert stages == {"preprocessing": 0.0, "module": 3.0, "between stages": 0.0, "post": 0.0}


def test_there_are_as_many_passes_as_there_is_time_for() -> None:
    clock = Clock()
    batches = make_batches(1, (4, 4), torch.uint8, pinned=False, seed=0)
    module = Bank(clock)

    def seconds() -> float:
        return clock.milliseconds / 1e3

    stages = time_stages(module, batches, CPU, HostMarks(clock.now), seconds=0.145, now=seconds)
    assert stages.passes == 10
    assert all(part.p99 is None for part in stages.parts), "ten passes have no 99th percentile"
    few = time_stages(module, batches, CPU, HostMarks(clock.now), seconds=1e-9, now=seconds)
    assert few.passes == 3


def test_a_module_is_left_as_it_was() -> None:
    module = Bank(Clock())
    batches = make_batches(1, (4, 4), torch.uint8, pinned=False, seed=0)
    time_stages(module, batches, CPU, make_marks(CPU), seconds=1e-9)
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())


def _detectors() -> Iterator[tuple[nn.Module, list[str]]]:
    yield EfficientAdNetwork("S", padding=False), ["teacher", "student", "autoencoder"]
    config = UninformedStudents.Config()
    students = UninformedStudents.build_module(config, {})
    yield students, ["teacher", "students"] * len(config.patch_sizes)


def test_parts_are_called_what_the_detectors_call_them() -> None:
    for module, names in _detectors():
        assert [name for name, _ in parts_of(module)] == names


def test_a_detector_that_names_no_networks_has_its_children_as_parts() -> None:
    module = nn.ModuleDict({"first": nn.Linear(2, 2), "smoothing": nn.ReLU(), "second": nn.Linear(2, 2)})
    assert [name for name, _ in parts_of(module)] == ["first", "second"]


def test_a_memory_banks_search_is_a_part() -> None:
    class Features(nn.Module):
        grid = (2, 2)

        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.ModuleDict({"network": nn.Conv2d(3, 3, 2, 2)})

        def forward(self, images: Tensor) -> Tensor:
            return self.get_submodule("backbone.network")(images.float())  # type: ignore[no-any-return]

    module = PatchDistances(Features(), torch.rand(4, 3), (4, 4), 1, 1.0)  # type: ignore[arg-type]
    batches = make_batches(1, (4, 4), torch.uint8, pinned=False, seed=0)
    with torch.inference_mode():
        stages = time_stages(module, batches, CPU, make_marks(CPU), seconds=1e-9)
    assert [part.name for part in stages.parts] == [PREPROCESSING, "backbone", "search", BETWEEN, POST]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_parts_are_timed_by_events() -> None:
    gpu = torch.device("cuda", 0)
    module = EfficientAdNetwork("S", padding=False).to(gpu).eval()
    batches = make_batches(1, (256, 256), torch.uint8, pinned=False, seed=0)
    with torch.inference_mode():
        stages = time_stages(module, batches, gpu, make_marks(gpu), seconds=1.0)
    names = [part.name for part in stages.parts]
    assert names[:3] == ["transfer to device", "preprocessing", "teacher"]
    assert names[-1] == "transfer back"
    assert all(part.p50 >= 0 for part in stages.parts)
