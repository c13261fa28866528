"""What every built-in detector must do: on tiny images, on the CPU, without a download."""

from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from methods.conformance import BUILT_IN_SETUPS, CHECKS, Subject, check_detector, run_check
from methods.conformance.emulation import PRODUCTS, HalfProducts
from methods.conformance.images import striped
from methods.detector import ImageSet
from methods.errors import MethodError
from methods.patchcore import PatchCore
from methods.registry import BUILT_IN, load_method


@cache
def subject(name: str) -> Subject:
    setup = BUILT_IN_SETUPS[name]
    return Subject(load_method(name), setup.options, exceptions=setup.exceptions)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", BUILT_IN_SETUPS)
def test_built_in_method(name: str, check: str) -> None:
    outcome = run_check(check, subject(name))
    assert not outcome.broken, outcome.explanation


TRANSFORMER = {"backbone": "vit_small_patch14_dinov2", "backbone_weights": "random", "image_size": (84, 56)}
ON_A_TRANSFORMER = {
    "patchcore": {"levels": (1,), "coreset_fraction": 0.1},
    "spade": {"levels": (1,), "image_level": 3},
    "l2bt": {"levels": (1, 3), "hidden_dim": 64, "epochs": 20},
}


@cache
def on_a_transformer(name: str) -> Subject:
    return Subject(load_method(name), TRANSFORMER | ON_A_TRANSFORMER[name])


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", ON_A_TRANSFORMER)
def test_built_in_method_on_a_transformer(name: str, check: str) -> None:
    outcome = run_check(check, on_a_transformer(name))
    assert not outcome.broken, outcome.explanation


def test_every_built_in_method_has_a_setup() -> None:
    assert set(BUILT_IN_SETUPS) == set(BUILT_IN)


def test_exceptions_are_declared_for_checks_that_exist() -> None:
    with pytest.raises(MethodError, match="did you mean 'gray'"):
        check_detector(PatchCore, exceptions={"grey": "all images have colours"})
    with pytest.raises(MethodError, match="did you mean 'sigma'"):
        check_detector(PatchCore, {"sigmas": 2})


class Seen(TorchDispatchMode):
    """Remembers the data types in which products are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in PRODUCTS:
            self.dtypes |= {value.dtype for value in args if isinstance(value, torch.Tensor)}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_emulated_half_precision_is_what_the_cpu_computes(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 9, 9, generator=generator).to(dtype)
    rows = images.flatten(1)

    def products() -> list[torch.Tensor]:
        return [F.conv2d(images, images[:, :, :3, :3]), rows @ rows.T, F.linear(rows, rows, rows[0, :2])]

    with torch.no_grad(), Seen() as seen, HalfProducts():
        emulated = products()
        large = torch.full((1, 8), 1e38 if dtype == torch.bfloat16 else 200.0, dtype=dtype)
        assert (large @ large.T).isinf().all()
    assert seen.dtypes == {torch.float32}
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(emulated, products(), rtol=tolerance, atol=tolerance)


def test_an_image_set_yields_images_only() -> None:
    images = striped(4, (8, 8), seed=0)
    subset = ImageSet(images, [3, 1])
    assert {name for name in dir(subset) if not name.startswith("_")} == {"size", "batches"}
    assert torch.equal(subset[:], images[[3, 1]])
    assert torch.equal(subset[0], images[3])
    assert [len(batch) for batch in subset.batches(1)] == [1, 1]
    with pytest.raises(ValueError, match="uint8"):
        ImageSet(images.float())
