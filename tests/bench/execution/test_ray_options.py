"""What a user can get wrong about Ray, without a cluster."""

import importlib.util
import sys

import pytest

from bench.errors import UsageError
from bench.execution.ray_cluster import check_ray, choose_needs, connected, room
from bench.options import RunOptions, resolve

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


def options(**given: object) -> RunOptions:
    return resolve(RunOptions, {"methods": "tiny", **given}, "bench run")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("engine", "dask", "'local', 'ray' or 'slurm'"),
        ("ray", "num_gpu=1", "'num_cpus', 'num_gpus' or 'memory'"),
        ("ray", "num_gpus=-1", "greater than or equal to 0"),
        ("ray", ["memory=8GB"], "valid number"),
        ("ray", ["num_cpus"], "NAME=NUMBER"),
    ],
)
def test_a_value_that_makes_no_sense_is_named_with_its_flag(name: str, value: object, reason: str) -> None:
    with pytest.raises(UsageError, match=f"--{name} does not take") as error:
        options(**{name: value})
    assert reason in str(error.value)


def test_resources_are_numbers_by_name() -> None:
    expected = {"num_gpus": 0.5, "num_cpus": 4.0, "memory": 8e9}
    assert options(ray=["num_gpus=0.5, num_cpus=4,memory=8e9"]).ray == expected
    assert options(ray=["num_gpus=0.5", "num_cpus=4,memory=8e9"]).ray == expected
    assert options(ray=expected).ray == expected


@pytest.mark.parametrize("given", [{"ray_address": "auto"}, {"ray": "num_cpus=2"}])
def test_options_of_ray_need_its_engine(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"--ray.* pass that, too"):
        check_ray(options(**given), "cpu")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'anomaly-bench\[ray\]'"):
        check_ray(options(engine="ray"), "cpu")


@with_ray
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("given", "device", "reason"),
    [
        ({"ray_address": "ray://host:10001"}, "cpu", "--ray-address auto or HOST:PORT"),
        ({"device": "cuda:1"}, "cuda", "not cuda:1\n  Allowed: auto, cpu, cuda"),
        ({"ray": "num_gpus=1"}, "cpu", "Pass --device cuda"),
        ({"ray": "num_gpus=0"}, "cuda", "Pass --device cpu"),
        ({"ray": "num_cpus=0"}, "cpu", "Pass 1 or more"),
        ({"ray": "num_gpus=1.5"}, "cuda", "a whole number"),
    ],
)
def test_options_that_contradict_each_other(given: dict[str, object], device: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check_ray(options(engine="ray", **given), device)


@with_ray
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "127.0.0.1:99999"])
def test_a_cluster_that_does_not_answer(address: str) -> None:
    with pytest.raises(UsageError, match=f"the Ray cluster at {address} cannot be used: .*\n"), connected(address):
        pass


def test_a_cell_takes_its_share_of_a_node() -> None:
    small, large = {"CPU": 4.0}, {"CPU": 64.0, "GPU": 4.0, "memory": 1e11}
    assert choose_needs([large], "cpu", {}) == {"num_cpus": 8, "num_gpus": 0.0}
    assert choose_needs([small, large], "cpu", {}) == {"num_cpus": 4, "num_gpus": 0.0}
    assert choose_needs([small, large], "cuda", {}) == {"num_cpus": 16, "num_gpus": 1.0}
    assert choose_needs([large], "cuda", {"num_gpus": 0.5}) == {"num_cpus": 8, "num_gpus": 0.5}
    assert choose_needs([large], "cuda", {"num_cpus": 2, "memory": 8e9})["num_cpus"] == 2


def test_room_is_counted_by_what_is_scarcest() -> None:
    nodes = [{"CPU": 4.0}, {"CPU": 64.0, "GPU": 3.0, "memory": 1e11}]
    assert room(nodes, {"num_cpus": 2, "num_gpus": 0}) == 34
    assert room(nodes, {"num_cpus": 1, "num_gpus": 0.1}) == 30
    assert room(nodes, {"num_cpus": 1, "num_gpus": 1, "memory": 6e10}) == 1
    assert room(nodes, {"num_cpus": 1, "num_gpus": 4}) == 0
    assert room([], {"num_cpus": 1}) == 0
