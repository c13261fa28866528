import random

import numpy as np
import pytest
import torch

from methods.common.seeding import reproducible

CPU = torch.device("cpu")


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def generators():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
    )


@pytest.fixture
def unusual_settings():
    usual = settings()
    torch.use_deterministic_algorithms(False, warn_only=False)
    torch.backends.cudnn.benchmark = True
    yield settings()
    torch.use_deterministic_algorithms(usual[0], warn_only=usual[1])
    torch.utils.deterministic.fill_uninitialized_memory = usual[2]
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = usual[3:]


@pytest.mark.parametrize("seed", [0, 5, 2**32 + 5, 2**63 - 1])
def test_the_seed_alone_decides_what_is_drawn(seed):
    with reproducible(seed, CPU):
        first = draws()
    draws()
    with reproducible(seed, CPU):
        assert draws() == first
    with reproducible(seed + 1, CPU) if seed < 2**63 - 1 else reproducible(1, CPU):
        assert not set(draws()) & set(first)


def test_numbers_are_those_of_the_libraries_own_seeding():
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    expected = draws()
    with reproducible(3, CPU):
        assert draws() == expected


def test_algorithms_are_deterministic_inside(unusual_settings):
    with reproducible(0, CPU):
        assert settings() == (True, True, False, False, True)


def test_generators_and_settings_are_put_back(unusual_settings):
    before = generators()
    with reproducible(7, CPU):
        draws()
        torch.manual_seed(1)
    assert generators() == before
    assert settings() == unusual_settings


def test_an_error_leaves_nothing_behind(unusual_settings):
    before = generators()

    def fail():
        with reproducible(7, CPU):
            draws()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert generators() == before
    assert settings() == unusual_settings


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpus_generator_is_seeded_and_put_back():
    before = torch.cuda.get_rng_state()
    for device in (torch.device("cuda"), torch.device("cuda:0")):
        with reproducible(7, device):
            first = torch.rand(1, device=device)
        with reproducible(7, device):
            assert torch.equal(torch.rand(1, device=device), first)
    assert torch.equal(torch.cuda.get_rng_state(), before)
